"""The proof itself: it fails when it must, and writes a record on request."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.conftest import write
from tests.programs.records import VARIABLE, Record, version
from tests.programs.served import Served, mounted_by, served_mount
from tests.support import requires

pytestmark = requires("mounting")

SIZE = 1 << 20


def fill(source: str) -> None:
    write(source, "file", os.urandom(SIZE))


served = served_mount(fill)


def test_a_read_by_another_path_is_no_proof(served: Served, tmp_path: Path) -> None:
    with mounted_by(tmp_path, served.source, "pool") as slow:
        claimed = Served("splice", slow.daemon)
        with pytest.raises(AssertionError), claimed.proof(delivered=SIZE):
            slow.same("cat", "{}/file")


def test_a_block_that_reads_nothing_by_splice_is_no_proof(served: Served, tmp_path: Path) -> None:
    with (
        mounted_by(tmp_path, served.source, "splice") as spliced,
        pytest.raises(AssertionError),
        spliced.proof(delivered=SIZE),
    ):
        spliced.same("stat", "-c", "%s", "{}/file")


def test_a_test_that_does_not_say_how_much_was_read_proves_nothing(served: Served) -> None:
    with pytest.raises(AssertionError, match="does not say"), served.proof():
        served.same("cat", "{}/file")


def test_a_program_that_gives_something_else_on_the_mount_is_noticed(served: Served) -> None:
    with pytest.raises(AssertionError):
        served.same("echo", "{}/file")


@requires("passthrough")
def test_a_readahead_on_advice_has_to_be_announced(served: Served) -> None:
    advise = ["dd", "if={}/file", "iflag=nocache", "of=/dev/null", "status=none"]
    with served.proof(delivered=SIZE):
        served.run(*advise)
    code = "import os, sys; fd = os.open(sys.argv[1], 0); os.posix_fadvise(fd, 0, 0, 3)"
    with pytest.raises(AssertionError), served.proof(delivered=SIZE):
        served.daemon.python(code, served.daemon.path("file"))
    with served.proof(delivered=SIZE, advised=True) as proof:
        served.daemon.python(code, served.daemon.path("file"))
    assert proof.ledger.reads > 0


def test_a_record_is_a_line_of_json(
    served: Served, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "records"))
    with served.proof(delivered=SIZE) as proof:
        served.same("cat", "{}/file")
    for compared in ("its output", "again"):
        record("cat", version("cat", "--version"), compared, proof)
    lines = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert [line["compared"] for line in lines] == ["its output", "again"]
    assert lines[0]["path"] == served.path
    assert lines[0]["delivered"] == SIZE
    assert lines[0]["requests"] > 0
    assert lines[0]["version"][0].isdigit()
