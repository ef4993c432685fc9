"""`zcfuse umount` is bounded, and the daemon is gone when it returns."""

import importlib
import json
import signal
import subprocess
import time

import pytest

from tests.cli.conftest import busy, ended
from tests.support import find_mount, requires
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
        result = zcfuse("umount", "--wait", "0.5", daemon.mountpoint)
        assert time.monotonic() - began < 10
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "was busy (waited 0.5 s), so it was detached lazily" in result.stderr
    assert daemon.mount is None
    assert daemon.wait() == 0


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
    zcfuse("umount", "--wait", "0", daemon.mountpoint)
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
    monkeypatch.setattr(_umount, "request_unmount", lambda entry, wait: said)
    assert _umount._unmount(_umount.find_mount(daemon.mountpoint), 1) == ""
    assert find_mount(daemon.mountpoint) is None
