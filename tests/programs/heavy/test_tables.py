"""Tables: a mapped Arrow file, and Parquet files for DuckDB."""

from __future__ import annotations

import os
import sys
from importlib import metadata

import pytest

from tests.integration.conftest import command
from tests.programs.conftest import Record
from tests.programs.heavy.machine import require_no_pages_twice
from tests.programs.served import FAST, FROZEN, Served, served_mount
from tests.support import requires
from tests.support._user import CHECKOUT

HERE = os.path.dirname(os.path.realpath(__file__))
EXAMPLE = os.path.join(CHECKOUT, "examples", "parquet_duckdb.py")
DEADLINE_S = 100
# Needs every column of every row, and adds integers, whose sum is independent of the order.
QUESTION = """
    SELECT kind, count(*), sum(value), sum(hash(id, name) % 1000003) FROM files
    GROUP BY ALL ORDER BY ALL
"""

pytestmark = [pytest.mark.proof, requires("mounting", "pyarrow", "duckdb")]


def fill(directory: str) -> None:
    command(sys.executable, os.path.join(HERE, "make_tables.py"), directory)


served = served_mount(fill, [*FAST, FROZEN])


def test_a_mapped_arrow_file_is_a_table_without_a_copy(served: Served, record: Record) -> None:
    program = os.path.join(HERE, "arrow_map.py")
    with served.proof(delivered=served.size("table.arrow")) as proof:
        said = served.same(sys.executable, program, "{}/table.arrow", timeout=DEADLINE_S)
    assert b" 0 allocated" in said
    require_no_pages_twice(served, "table.arrow")
    did = "pyarrow.memory_map of an Arrow file; rows, sums, and that nothing was allocated"
    record("PyArrow", metadata.version("pyarrow"), did, proof)


def test_duckdb_answers_from_parquet_files(served: Served, record: Record) -> None:
    with served.proof(delivered=served.size("parquet") // 2) as proof:
        said = served.same(sys.executable, EXAMPLE, "{}/parquet", QUESTION, timeout=DEADLINE_S)
    assert said.count(b"\n") == 7
    did = "a question that needs all columns of Parquet files; the answer"
    record("DuckDB", metadata.version("duckdb"), did, proof)
