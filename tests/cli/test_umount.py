"""`zcfuse umount` is bounded, and the daemon is gone when it returns."""

import importlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import busy, ended, refused, run_zcfuse
from tests.support import find_mount, fuse_mounts, requires
from zcfuse.admin.status._document import UnmountReply

pytestmark = requires("mounting")

# The command of this name hides its module.
_umount = importlib.import_module("zcfuse.cli.umount")
PATHS = ["naive", "auto"]


@pytest.mark.parametrize("path", PATHS)
def test_the_daemon_has_ended_when_umount_returns(mounted, zcfuse, path):
    daemon = mounted("--path", path)
    result = zcfuse("umount", daemon.mountpoint)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert daemon.mount is None
    assert daemon.process.wait(1) == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_busy_mount_is_detached_after_the_wait_with_a_line(mounted, zcfuse, path):
    daemon = mounted("--path", path)
    with busy(daemon.mountpoint):
        began = time.monotonic()
        result = zcfuse("umount", "--force", "--wait", "0.5", daemon.mountpoint)
        assert time.monotonic() - began < 10
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "was busy (waited 0.5 s), so it was detached lazily" in result.stderr
    assert daemon.mount is None
    assert daemon.wait() == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_busy_mount_stays_and_a_line_names_who_uses_it(mounted, zcfuse, source, path):
    Path(source, "file").write_bytes(b"x" * 5000)
    daemon = mounted("--path", path)
    with busy(daemon.mountpoint) as child:
        result = zcfuse("umount", "--wait", "0", daemon.mountpoint)
        words = [f"{daemon.mountpoint}: busy", f"sleep ({child.pid}, working directory)", "--force"]
        refused(result, 1, *words)
    reader, writer = os.pipe()
    with open(daemon.path("file"), "rb") as file:
        holder = subprocess.Popen(["sh", "-c", "read line"], stdin=reader, stderr=file)
    os.close(reader)
    try:
        refused(
            zcfuse("umount", "--wait", "0", daemon.mountpoint), 1, f"sh ({holder.pid}, open file)"
        )
    finally:
        os.close(writer)
        holder.wait(20)
    assert daemon.run("cat", daemon.path("file")).stdout == b"x" * 5000
    assert zcfuse("umount", daemon.mountpoint).returncode == 0
    assert daemon.wait() == 0


def test_a_mount_that_is_detached_lazily_serves_who_has_it_open(mounted, zcfuse, source):
    Path(source, "file").write_bytes(b"x" * 5000)
    daemon = mounted("--path", "splice")
    with open(daemon.path("file"), "rb") as file:
        assert zcfuse("umount", "--lazy", daemon.mountpoint).returncode == 0
        assert daemon.mount is None
        read = subprocess.run(["cat"], stdin=file, capture_output=True, timeout=20, check=True)
        assert read.stdout == b"x" * 5000
    assert daemon.wait() == 0


@requires("ordinary user", "fusermount3")
def test_all_mounts_of_a_user_are_unmounted_in_one_go(ordinary_user, zcfuse):
    places = [ordinary_user.directory(name) for name in ("source", "one", "two")]
    for where in places[1:]:
        mounted = run_zcfuse("mount", places[0], where, user=ordinary_user)
        assert (mounted.returncode, mounted.stderr) == (0, "")
    result = run_zcfuse("unmount", "--all", user=ordinary_user)
    assert (result.returncode, result.stderr) == (0, "")
    left = fuse_mounts(ordinary_user.mountinfo_pid)
    assert not {mount.mountpoint for mount in left} & set(places)


@pytest.mark.parametrize("arguments", [(), ("--all", "/mnt"), ("--lazy", "--force", "/mnt")])
def test_a_mount_point_and_all_exclude_each_other(zcfuse, arguments):
    refused(zcfuse("umount", *arguments), 2, "zcfuse umount: ")


@pytest.mark.parametrize("path", PATHS)
def test_who_still_uses_a_detached_mount_gets_an_error_and_does_not_hang(mounted, zcfuse, path):
    daemon = mounted("--path", path)
    client = subprocess.Popen(
        ["sh", "-c", 'cd "$0"; echo in; read line; exec ls -l missing', daemon.mountpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"in\n"
    zcfuse("umount", "--force", "--wait", "0", daemon.mountpoint)
    _, errors = client.communicate(b"\n", timeout=20)
    assert b"endpoint is not connected" in errors


def test_a_mount_whose_user_leaves_in_time_is_unmounted_without_a_word(mounted, zcfuse):
    daemon = mounted()
    leaves = subprocess.Popen(
        ["sh", "-c", 'cd "$0"; echo in; exec sleep 0.7', daemon.mountpoint], stdout=subprocess.PIPE
    )
    assert leaves.stdout is not None
    assert leaves.stdout.readline() == b"in\n"
    result = zcfuse("umount", "--wait", "10", daemon.mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    leaves.communicate(timeout=20)


@pytest.mark.parametrize("path", PATHS)
def test_a_daemon_that_hangs_is_unmounted_without_it(mounted, zcfuse, path):
    daemon = mounted("--path", path)
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        result = zcfuse("umount", "--wait", "0.5", daemon.mountpoint)
        assert result.returncode == 0
        assert "did not answer" in result.stderr
        assert daemon.mount is None
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert daemon.wait() == 0


@requires("root")
def test_a_bind_mount_of_the_mount_finds_its_daemon(mounted, zcfuse, tmp_path):
    daemon = mounted()
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", daemon.mountpoint, str(other)], check=True, timeout=20)
    try:
        status = zcfuse("status", "--json", str(other))
        assert json.loads(status.stdout)["pid"] == daemon.pid
    finally:
        subprocess.run(["umount", str(other)], check=True, timeout=20)


@requires("root", "private mounts")
def test_a_mount_that_lives_on_in_another_namespace_loses_its_daemon(zcfuse, source, mountpoint):
    zcfuse("mount", source, mountpoint)
    pid = json.loads(zcfuse("status", "--json", mountpoint).stdout)["pid"]
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo in; exec sleep 60"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        assert zcfuse("umount", mountpoint).returncode == 0
        assert find_mount(mountpoint) is None
        assert ended(pid)
    finally:
        holder.kill()
        holder.communicate(timeout=20)


def test_a_mount_that_is_still_there_is_taken_away_whatever_the_daemon_says(mounted, monkeypatch):
    daemon = mounted()
    said = UnmountReply(failed=False, message="")
    monkeypatch.setattr(_umount, "request_unmount", lambda entry, wait, *, force: said)
    assert _umount._unmount(_umount.find_mount(daemon.mountpoint), 1, force=True) == ""
    assert find_mount(daemon.mountpoint) is None
