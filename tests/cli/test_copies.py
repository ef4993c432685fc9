"""``zcfuse copies``: tables, JSON, and refusals."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import refused, run_zcfuse, without_progress
from tests.support import eventually
from tests.support._capabilities import requires
from tests.support._kernel import fuse_mounts
from tests.support._user import CHECKOUT
from zcfuse.audit import CLASSIC, model_of, native_model
from zcfuse.bench import Report, Row
from zcfuse.bench._copies import Counted, Speed
from zcfuse.cli.copies import _failures, _print, report_document

COUNTED = Counted(
    ledger_copied_in=1,
    ledger_copied_out=1,
    audit_copied_in=1,
    audit_copied_out=1,
    served=1,
    ledger_reads=64,
    kernel_reads=None,
    kernel_requests=None,
    system_calls=None,
    ledger_calls=128,
    first_faults=3,
    faults=0,
    switches=9,
    cpu_s_per_gb=0.25,
    cached_twice=None,
)


def _report(**changes: object) -> Report:
    naive = Row(
        "naive",
        speed=Speed(2.0, 1.0, 3.0),
        counted=COUNTED,
        model=model_of("naive", 1, 1, 1),
        identical=True,
        notes=("requests by the kernel: no",),
        **changes,  # type: ignore[arg-type]
    )
    native = Row("native", speed=Speed(4.0, 4.0, 4.0), model=native_model(), identical=True)
    gone = Row("passthrough", reason="passthrough: EPERM")
    return Report("/a/file", 1 << 26, 3, "6.18", "", (native, naive, gone))


def test_a_missing_path_is_a_row_with_its_reason(capsys: pytest.CaptureFixture[str]):
    _print(_report())
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if line.startswith("passthrough"))
    assert line.split()[-2:] == ["passthrough:", "EPERM"]


def test_ratios_are_to_naive_and_uncounted_system_calls_are_the_ledgers(
    capsys: pytest.CaptureFixture[str],
):
    _print(_report())
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if line.startswith("native"))
    assert line.split()[1:3] == ["4.00", "2.00"]
    assert "~128" in output


def test_the_second_table_begins_with_four_copies(capsys: pytest.CaptureFixture[str]):
    _print(_report())
    output = capsys.readouterr().out
    assert f"{CLASSIC.client_reads:.2f}" in output
    assert "4 copies (classic FUSE, a client that reads) become" in output


def test_a_difference_is_a_failure():
    assert _failures(_report()) == []
    assert _failures(_report(differences=("bytes copied in: ...",))) == [
        "naive: bytes copied in: ..."
    ]


def test_json_has_the_sums_that_the_tables_show():
    rows = report_document(_report())["rows"]
    assert rows[1]["counted"]["ledger_copies"] == 2
    assert rows[1]["model"]["client_reads"] == 3
    assert rows[2]["reason"] == "passthrough: EPERM"


@requires("mounting")
def test_it_measures_a_file_of_the_users_and_leaves_nothing(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(1 << 20))
    result = run_zcfuse(
        "copies", "--source", str(path), "--rounds", "1", "--path", "naive", "--json"
    )
    assert (result.returncode, without_progress(result.stderr)) == (0, "")
    names = [row["name"] for row in json.loads(result.stdout)["rows"]]
    assert names == ["native", "naive"]
    assert not [mount for mount in fuse_mounts() if mount.source == str(tmp_path)]


@requires("mounting")
def test_its_table_has_every_path():
    result = run_zcfuse("copies", "--size", "1M", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    for name in ("native", "naive", "upcall", "pool", "mmap", "splice", "passthrough"):
        assert f"\n{name}" in result.stdout


@requires("ordinary user")
def test_an_ordinary_user_gets_every_row_or_its_reason(ordinary_user):
    result = run_zcfuse("copies", "--size", "1M", "--rounds", "1", "--json", user=ordinary_user)
    assert result.returncode == 0, result.stderr
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    assert rows["splice"]["reason"] == ""
    assert rows["splice"]["identical"] is True


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--size", "0"), "--size"),
        (("--size", "many"), "size"),
        (("--path", "teleport"), "teleport"),
        (("--source", "/nonexistent/file"), "/nonexistent/file"),
        (("--source", "/"), "not a regular file"),
    ],
)
def test_a_wrong_use_is_one_line_and_status_2(arguments: tuple[str, ...], word: str):
    refused(run_zcfuse("copies", *arguments), 2, word)


@requires("mounting")
def test_being_terminated_leaves_no_mount(tmp_path):
    argv = [sys.executable, "-m", "zcfuse", "copies", "--size", "64M", "--rounds", "100"]
    environment = {**os.environ, "PYTHONPATH": CHECKOUT, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL) as child:
        assert eventually(lambda: _mounts_below(str(tmp_path)) or child.poll() is not None, 30)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 130
    assert _mounts_below(str(tmp_path)) == []
    assert os.listdir(tmp_path) == []


def _mounts_below(directory: str) -> list[str]:
    return [m.mountpoint for m in fuse_mounts() if m.mountpoint.startswith(directory + "/")]
