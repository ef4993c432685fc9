"""`zcfuse status` and `zcfuse list`: the same data for people and for programs."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import refused
from tests.support import requires
from zcfuse import __version__

pytestmark = requires("mounting")


def row_of(zcfuse, mountpoint):
    rows = json.loads(zcfuse("list", "--json").stdout)
    return next((row for row in rows if row["mountpoint"] == mountpoint), None)


def test_status_has_both_planes_and_the_threads(mounted, source):
    with open(os.path.join(source, "file"), "w") as file:
        file.write("x")
    daemon = mounted("--path", "pool", "--no-directory-lease")
    daemon.run("cat", daemon.path("file"))
    document = daemon.status()
    assert document["pid"] == daemon.pid
    assert (document["source"], document["mountpoint"]) == (daemon.source, daemon.mountpoint)
    assert document["control"]["upcalls"]["open"] == 1
    assert document["datapath"]["paths"]["pool"]["bytes"] == 1
    assert document["datapath"]["init"]["done"] is True
    assert {"control", "serve"} <= {thread["role"] for thread in document["threads"]}
    assert document["uptime_s"] > 0


def test_status_of_a_naive_mount_has_no_data_plane(mounted, zcfuse):
    daemon = mounted("--path", "naive")
    assert daemon.status()["datapath"] is None
    assert "no data plane" in zcfuse("status", daemon.mountpoint).stdout


def test_the_tables_name_what_a_user_looks_for(mounted, zcfuse):
    daemon = mounted("--path", "pool")
    result = zcfuse("status", "-v", daemon.mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("negotiated", "served by path", "pool", "windows", "upcalls", str(daemon.pid)):
        assert word in result.stdout


def test_what_was_served_comes_before_the_means_and_no_line_is_filled_up(mounted, zcfuse):
    output = zcfuse("status", "-v", mounted("--path", "pool").mountpoint).stdout
    titles = ["mount", "served by path", "transport", "negotiated with the kernel"]
    assert [line for line in output.splitlines() if line in titles] == titles
    assert [line for line in output.splitlines() if line != line.rstrip()] == []


def test_the_first_screen_has_what_was_served_and_why_not_better(mounted, zcfuse, source):
    for number in range(20):
        Path(source, f"file{number}").write_bytes(bytes(5000))
    daemon = mounted("--path", "splice", "--threads", "1")
    daemon.run("sh", "-c", f"cat {daemon.mountpoint}/*")
    lines = zcfuse("status", daemon.mountpoint).stdout.splitlines()
    assert len(lines) <= 24
    assert next(line.split() for line in lines if line.startswith("splice"))[1:3] == [
        "20",
        "100,000",
    ]
    assert ["cached", "20"] in [line.split() for line in lines]
    assert lines[-1] == f"More: zcfuse status -v {daemon.mountpoint}"
    assert "threads" not in lines
    assert len(zcfuse("status", "-v", daemon.mountpoint).stdout.splitlines()) > 60


def test_status_tells_the_version_of_the_daemon(mounted, zcfuse):
    daemon = mounted()
    assert daemon.status()["version"] == __version__
    assert f"version      {__version__}\n" in zcfuse("status", daemon.mountpoint).stdout


def test_status_of_a_path_with_undecodable_bytes(mounted, zcfuse, tmp_path):
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff")
    os.mkdir(odd)
    daemon = mounted(mountpoint=odd)
    document = json.loads(zcfuse("status", "--json", odd).stdout)
    assert document["mountpoint"].endswith("\\xff")
    assert zcfuse("list").returncode == 0
    assert daemon.pid == document["pid"]


def test_status_of_a_daemon_that_hangs_is_bounded(mounted, zcfuse):
    daemon = mounted()
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        refused(zcfuse("status", daemon.mountpoint), 1, "did not answer within 5 s")
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def test_list_shows_a_mount_while_it_lives_and_when_it_is_dead(mounted, zcfuse):
    daemon = mounted()
    assert row_of(zcfuse, daemon.mountpoint) == {
        "mountpoint": daemon.mountpoint,
        "source": daemon.source,
        "user": os.geteuid(),
        "pid": daemon.pid,
        "path": "auto",
        "state": "alive",
    }
    assert daemon.mountpoint in zcfuse("list").stdout
    daemon.kill()
    row = row_of(zcfuse, daemon.mountpoint)
    assert (row["pid"], row["state"]) == (None, "dead")
    zcfuse("umount", daemon.mountpoint)
    assert row_of(zcfuse, daemon.mountpoint) is None


@requires("ordinary user", "root", "fusermount3")
def test_root_sees_the_daemon_of_a_user(ordinary_user, zcfuse, mounted):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    daemon = mounted(source=source, mountpoint=mountpoint, user=ordinary_user)
    enter = ("nsenter", f"--mount=/proc/{ordinary_user.mountinfo_pid}/ns/mnt")
    result = zcfuse("status", "--json", mountpoint, wrap=enter)
    assert json.loads(result.stdout)["pid"] == daemon.pid
    daemon.kill()
    refused(zcfuse("status", mountpoint, wrap=enter), 1, "gone (killed?)")
    assert zcfuse("umount", mountpoint, wrap=enter).returncode == 0


@pytest.mark.parametrize("command", ["status", "list"])
def test_a_reader_that_leaves_early_is_no_error(mounted, command):
    daemon = mounted()
    arguments = [daemon.mountpoint] if command == "status" else []
    line = '"$0" -m zcfuse "$@" --json | true; echo "${PIPESTATUS[0]}"'
    import sys

    result = daemon.run("bash", "-c", line, sys.executable, command, *arguments)
    assert result.stderr == b""
