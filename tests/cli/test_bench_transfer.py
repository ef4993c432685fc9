"""``zcfuse bench transfer``: its output, its files and its refusals."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.support import requires
from zcfuse.cli._errors import CommandError
from zcfuse.cli.bench import _transfer as bench_transfer

SHORT = ("--rounds", "1", "--methods", "read+write,sendfile", "--sinks", "tcp", "--size", "1M")


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "source" / "data"
    path.parent.mkdir()
    path.write_bytes(os.urandom(5 << 20))
    return str(path)


@requires("mounting")
def test_it_prints_a_table_a_page_and_plots_of_one_run(data: str, tmp_path: Path):
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    columns = ("--columns", "backing,splice", "--caches", "served,warm")
    result = run_zcfuse(
        "bench", "transfer", data, *SHORT, *columns, "--html", str(page), "--png", str(plots)
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "To a loopback TCP socket, warm" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("sendfile")]
    # GB/s, CPU and copies of the mount; then the same after those of the backing file.
    assert rows[0][3] == "0+0"
    assert (rows[2][3], rows[2][6]) == ("0", "0+0")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert {"speed-tcp-light.png", "latency-dark.png"} <= set(os.listdir(plots))
    assert os.listdir(os.path.dirname(data)) == ["data"]


def test_a_directory_stands_for_its_largest_file_and_json_has_all_samples(data: str):
    options = ("--columns", "backing", "--caches", "warm", "--no-latency", "--json")
    result = run_zcfuse("bench", "transfer", os.path.dirname(data), *SHORT, *options)
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert (document["format"], document["size"], document["source"]) == (1, 1 << 20, data)
    cell = document["cells"][1]
    assert (cell["method"], cell["identical"], cell["reason"]) == ("sendfile", True, "")
    assert cell["samples"][0]["client"]["copied_in"] == 0
    assert cell["figures"]["client_copies_per_byte"] == {"median": 0, "least": 0, "most": 0}


def test_without_a_source_a_temporary_file_is_measured():
    options = ("--columns", "backing", "--caches", "warm", "--no-latency")
    result = run_zcfuse("bench", "transfer", *SHORT, *options)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--methods", "teleport"), "--methods teleport: choose one of read+write"),
        (("--sinks", "udp"), "--sinks udp: choose one of tcp"),
        (("--columns", "upcall"), "--columns upcall: choose one of backing"),
        (("--caches", ","), "--caches: name at least one of cold"),
        (("--methods", "sendfile", "--sinks", "file"), "nothing to measure"),
        (("--block", "1000"), "multiple of 4096"),
        (("--size", "0"), "--size"),
        (("--size", "much"), "--size"),
        (("--rounds", "0"), "--rounds"),
        (("--html", "/nonexistent/page.html"), "create it"),
        (("--html", "/"), "name a file in it"),
        (("--png", "/dev/null"), "is no directory"),
        (("/nonexistent",), "/nonexistent: No such file"),
        (("/dev/null",), "/dev/null: not a regular file"),
    ],
)
def test_a_wrong_use_is_one_line_and_status_2(arguments: tuple[str, ...], word: str):
    refused(run_zcfuse("bench", "transfer", *arguments), 2, word)


def test_without_matplotlib_a_page_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CommandError, match=r"--html needs matplotlib: pip install 'zcfuse\[plots"):
        bench_transfer._require_places("page.html", None)
    with pytest.raises(CommandError, match="--png needs matplotlib"):
        bench_transfer._require_places(None, "plots")
    bench_transfer._require_places(None, None)


def test_a_directory_called_transfer_is_still_to_be_named():
    refused(run_zcfuse("bench", "./transfer"), 2, "/transfer: not a directory")


def test_both_commands_have_a_help_page_and_bench_names_the_other():
    bench = run_zcfuse("bench", "--help")
    assert bench.stdout.startswith("Usage: zcfuse bench [OPTIONS] [SOURCE]")
    assert "zcfuse bench transfer --help" in " ".join(bench.stdout.split())
    transfer = run_zcfuse("bench", "transfer", "--help")
    assert transfer.stdout.startswith("Usage: zcfuse bench transfer [OPTIONS] [SOURCE]")
