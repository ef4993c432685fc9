"""Tables fit a terminal of any width and show every row's whole name."""

import os
import pickle
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from tests.bench.transfer.conftest import quiet
from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.bench import existing_file
from zcfuse.bench.transfer import Plan, run_transfer
from zcfuse.cli._table import laid_out

WIDTHS = [60, 80, 100, 140]
COPIES = """
from tests.cli.test_copies import _report
from zcfuse.cli.copies import _print
_print(_report(differences=("bytes copied in: 2 counted by the daemon, 3 by the kernel",)))
"""
TRANSFER = """
import pickle, sys
from zcfuse.cli.bench._transfer_tables import print_report
with open(sys.argv[1], "rb") as file:
    print_report(pickle.load(file))
"""


def at_terminal(width: int, *argv: str) -> list[str]:
    """Run Python code at a terminal of this many columns and return the lines that it prints."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    found = bytearray()

    def take() -> None:
        try:
            while part := os.read(ours, 1 << 16):
                found.extend(part)
        except OSError:
            pass  # EIO: the last writer is gone

    reader = threading.Thread(target=take)
    reader.start()
    try:
        environment = {**os.environ, "PYTHONPATH": CHECKOUT, "TERM": "dumb"}
        environment.pop("COLUMNS", None)
        command = [sys.executable, *argv]
        subprocess.run(command, stdout=theirs, env=environment, check=True, timeout=60)
    finally:
        os.close(theirs)
        reader.join(10)
        os.close(ours)
    return found.decode().replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


def beginning_with(lines: list[str], name: str) -> list[str]:
    return [line for line in lines if line.split(" ")[0] == name]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_copies_fits(width: int):
    lines = at_terminal(width, "-c", COPIES)
    table = lines[2 : lines.index(next(line for line in lines if line.startswith("Each figure")))]
    assert max(map(len, lines[1:])) <= width
    names = ("naive", "native", "passthrough")
    blocks = [len(beginning_with(table, name)) for name in names]
    assert blocks == [blocks[0]] * 3
    text = " ".join(table)
    for cell in ("2.00", "~128", "0.250", "64", "passthrough: EPERM"):
        assert cell in text


@requires("mounting")
def test_the_tables_of_transfers_fit(tmp_path: Path):
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 20))
    plan = Plan(("sendfile",), ("null",), ("backing", "splice"), ("warm",), 1, 1 << 20)
    with existing_file(str(data), None) as source:
        report = run_transfer(source, plan, quiet)
    saved = tmp_path / "report"
    saved.write_bytes(pickle.dumps(report))
    for width in WIDTHS:
        lines = at_terminal(width, "-c", TRANSFER, str(saved))
        rows = beginning_with(lines, "sendfile")
        assert len(rows) >= 2
        assert max(map(len, rows)) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_of_any_shape_fits_and_loses_no_word(width: int):
    rows = [
        ["short", "7", "some words that are folded", "12,345,678", "a " * 70 + "end"],
        ["a name of some length", "8", "/a/path/" + "without/spaces" * 12, "9", ""],
    ]
    headings = ["name", "number", "words", "a much\nlonger heading", "note"]
    lines = laid_out(headings, rows, {0, 2, 4}, width)
    assert max(map(len, lines)) <= width
    found = "".join("".join(lines).split())
    for cell in ("short", "anameofsomelength", "12,345,678", "longerheading", "end"):
        assert cell in found
    assert all(any(line.startswith(name) for line in lines) for name in ("short", rows[1][0]))


def test_a_row_whose_name_takes_the_width_becomes_a_record():
    name = "/data/" + "directory/" * 9 + "file"
    lines = laid_out(["file", "locked", "note"], [[name, "4 KiB", "it has grown"]], {0, 2}, 80)
    assert lines == [name, "    locked 4 KiB \u00b7 note it has grown"]


def test_without_a_width_nothing_is_folded():
    words = "word " * 200 + "end"
    assert laid_out(["", ""], [["name", words]], {0, 1}, None) == [f"name  {words}"]
