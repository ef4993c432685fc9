"""``zcfuse bench``: its output and its refusals."""

import json
import os

import msgspec
import pytest

from tests.cli.conftest import refused, run_zcfuse, without_progress
from tests.support._capabilities import requires
from zcfuse.bench import BACKING, BenchReport, BenchRow, Cell
from zcfuse.bench._sweep import SweepCell, SweepReport, SweepRow
from zcfuse.cli import _figures
from zcfuse.cli.bench._command import _print_bench, _print_sweep, report_document

REPORT = BenchReport(
    source="/a",
    kernel="6.18",
    filesystem="ext4",
    cpus=2,
    load=0.1,
    rounds=3,
    loop_us=0.5,
    targets=(BACKING, "zcfuse"),
    commands={"zcfuse": "zcfuse mount"},
    unavailable={"bindfs": "not installed"},
    rows=(
        BenchRow(
            "sequential 1 MiB",
            "cold",
            {BACKING: Cell((100.0,), 1 << 20), "zcfuse": Cell((150.0,), 1 << 20)},
        ),
        BenchRow(
            "stat",
            "cold",
            {BACKING: Cell((2.0,)), "zcfuse": Cell(reason="cold dentries need root")},
        ),
    ),
)


def test_without_a_terminal_the_steps_are_told_in_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_figures, "_LINE_SECONDS", 0.0)
    with _figures.progress(3) as step:
        for name in ("write on backing", "write on zcfuse", ""):
            step(name)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "0 of 3 steps are done. write on backing",
        "1 of 3 steps are done. write on zcfuse",
        "2 of 3 steps are done.",
    ]


@pytest.mark.parametrize(("load", "shown"), [(0.4, False), (18.2, True)])
def test_a_busy_machine_is_named_with_its_load(
    capsys: pytest.CaptureFixture[str], load: float, shown: bool
) -> None:
    _print_bench(msgspec.structs.replace(REPORT, load=load))
    assert (
        "The machine was busy at the start (load 18.2, 2 CPUs)" in capsys.readouterr().out
    ) is shown


def test_large_transfers_are_throughput_with_the_ratio_of_the_time(
    capsys: pytest.CaptureFixture[str],
):
    _print_bench(REPORT)
    output = capsys.readouterr().out
    assert "10.49 GB/s" in output
    assert "6.99 GB/s (1.50)" in output


def test_what_is_missing_is_named_with_its_reason(capsys: pytest.CaptureFixture[str]):
    _print_bench(REPORT)
    output = capsys.readouterr().out
    assert "bindfs: not installed" in output
    assert "cold dentries need root" in output


def test_json_has_medians_and_ratios():
    cells = report_document(REPORT)["rows"][0]["cells"]
    assert (cells["zcfuse"]["median_us"], cells["zcfuse"]["ratio"]) == (150.0, 1.5)


def test_a_bucket_is_no_tree_of_the_users(tmp_path):
    refused(run_zcfuse("bench", "--remote", str(tmp_path)), 2, "--remote")


def test_a_sweep_names_the_best_path_of_each_size(capsys: pytest.CaptureFixture[str]):
    cells = {"pool": SweepCell(10, 9), "splice": SweepCell(20, 4)}
    _print_sweep(SweepReport("6.18", 1, {"mmap": "no"}, (SweepRow(4096, cells),)))
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if "KiB" in line)
    assert line.split()[-2:] == ["pool", "splice"]
    assert "mmap: no" in output


@requires("mounting")
def test_a_tree_of_the_users_is_measured(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(os.urandom(16384))
    result = run_zcfuse(
        "bench", str(tmp_path), "--paths", "naive", "--rounds", "1", "--no-peers", "--json"
    )
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    rows = {row["workload"]: row["cells"] for row in json.loads(result.stdout)["rows"]}
    assert rows["the same, warm"]["zcfuse naive"]["median_us"] > 0
    assert rows["sequential 1 MiB"]["backing"]["reason"] == "no file of 4 MiB or more"
    assert len(os.listdir(tmp_path)) == 5


@requires("mounting")
def test_an_archive_of_the_tree_is_measured_beside_it(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(os.urandom(16384))
    options = ("--paths", "naive", "--rounds", "1", "--no-peers", "--tar", "--json")
    result = run_zcfuse("bench", str(tmp_path), *options)
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    report = json.loads(result.stdout)
    rows = {row["workload"]: row["cells"] for row in report["rows"]}
    assert rows["the same, warm"]["zcfuse tar"]["median_us"] > 0
    assert rows["the same, warm"]["zcfuse tar.gz"]["median_us"] > 0
    assert {"ratarmount", "ratarmount .gz"} <= {*report["targets"], *report["unavailable"]}
    assert len(os.listdir(tmp_path)) == 5


@requires("mounting", "root")
def test_changes_are_measured_on_a_mirror_and_a_union_beside_the_tree(tmp_path):
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(os.urandom(16384))
    options = ("--rw", "--files", "20", "--rounds", "1", "--no-peers", "--json")
    result = run_zcfuse("bench", str(tmp_path), *options)
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    rows = {row["workload"]: row["cells"] for row in json.loads(result.stdout)["rows"]}
    assert {"zcfuse", "zcfuse union", "backing"} == set(rows["delete"])
    assert all(cell["median_us"] > 0 for cells in rows.values() for cell in cells.values())
    assert len(os.listdir(tmp_path)) == 5


@requires("mounting")
@pytest.mark.parametrize(("depth", "count"), [((), 3), (("--depth", "12"), 12)])
def test_layers_with_the_files_of_the_tree_are_measured_in_its_place(depth, count, tmp_path):
    for index in range(5):
        (tmp_path / f"{index}").write_bytes(os.urandom(16384))
    options = ("--paths", "naive", "--rounds", "1", "--layers", *depth, "--json")
    result = run_zcfuse("bench", str(tmp_path), *options)
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    report = json.loads(result.stdout)
    rows = {row["workload"]: row["cells"] for row in report["rows"]}
    assert rows["the same, warm"]["zcfuse naive"]["median_us"] > 0
    assert report["commands"]["zcfuse naive"].count("--layer=") == count
    assert {"overlayfs", "fuse-overlayfs"} <= {*report["targets"], *report["unavailable"]}
    assert len(os.listdir(tmp_path)) == 5


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--paths", "teleport"), "teleport"),
        (("/nonexistent",), "not a directory"),
        (("/",), "no place for a mountpoint"),
        (("--rounds", "0"), "--rounds"),
        (("--rw", "--layers"), "--rw"),
        (("--depth", "12"), "--layers"),
    ],
)
def test_a_wrong_use_is_one_line_and_status_2(arguments: tuple[str, ...], word: str):
    refused(run_zcfuse("bench", *arguments), 2, word)
