"""A run over every method, from the backing file and from mounts, of a file of odd size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support import skip_unless
from zcfuse.bench import SourceFile, existing_file
from zcfuse.bench.transfer import METHODS, Plan, TransferReport, run_transfer

# Not a multiple of a page, and more than the three blocks that fit a pipe or a ring's buffers.
SIZE: Final = (5 << 20) + 12345
COLUMNS: Final = ("backing", "splice")


def quiet(_step: str) -> None:
    """Show no progress."""


def plan_of(**changes: object) -> Plan:
    """Everything once, except for `changes`."""
    chosen = {
        "methods": tuple(method.name for method in METHODS),
        "sinks": ("tcp", "unix", "null", "file"),
        "columns": COLUMNS,
        "caches": ("cold", "served", "warm"),
        "rounds": 1,
        "block": 1 << 20,
        **changes,
    }
    return Plan(**chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def source_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceFile]:
    path = tmp_path_factory.mktemp("transfer") / "data"
    path.write_bytes(os.urandom(SIZE))
    with existing_file(str(path), None) as source:
        yield source


@pytest.fixture(scope="session")
def report(source_file: SourceFile) -> TransferReport:
    skip_unless("mounting")
    return run_transfer(source_file, plan_of(), quiet)
