"""Processes of one machine share a mount: the first one mounts, and the last one unmounts."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support import Daemon, eventually, find_mount, requires
from tests.support._user import CHECKOUT
from zcfuse.linux import MountError
from zcfuse.workers import SharedMount

pytestmark = requires("mounting")

_PATIENCE_S = 60
# Holds the mount until a line comes, then leaves it.
_USER = """
import sys
from zcfuse.workers import SharedMount
with SharedMount(*sys.argv[1:]):
    print("entered", flush=True)
    sys.stdin.readline()
"""

User = subprocess.Popen[str]


@pytest.fixture
def user(source, mountpoint) -> Iterator[Callable[..., User]]:
    """Starts a process that uses the mount: ``user(*options)``; nothing stays mounted."""
    with open(os.path.join(source, "file"), "w") as file:
        file.write("bytes")
    started: list[User] = []

    def start(*options: str) -> User:
        process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(source), str(mountpoint), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "entered\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    command = [sys.executable, "-m", "zcfuse", "umount", "--force", str(mountpoint)]
    subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, cwd=CHECKOUT)


def _end(process: User) -> None:
    process.communicate("\n", timeout=_PATIENCE_S)
    assert process.returncode == 0


def _daemon(mountpoint) -> int:
    return SharedMount("", str(mountpoint)).figures()["daemon"]


def _read(mountpoint) -> bytes:
    command = ["cat", os.path.join(mountpoint, "file")]
    return subprocess.run(command, capture_output=True, timeout=_PATIENCE_S).stdout


def test_processes_share_one_daemon_and_the_last_one_unmounts(user, mountpoint):
    first = user()
    daemon = _daemon(mountpoint)
    second = user()
    assert _daemon(mountpoint) == daemon
    _end(first)
    assert _daemon(mountpoint) == daemon
    assert _read(mountpoint) == b"bytes"
    _end(second)
    assert find_mount(str(mountpoint)) is None
    assert eventually(lambda: not os.path.exists(f"/proc/{daemon}/exe"))


def test_a_process_that_is_killed_leaves_the_mount_to_the_others(user, mountpoint):
    first, second = user(), user()
    first.send_signal(signal.SIGKILL)
    first.wait(_PATIENCE_S)
    assert _read(mountpoint) == b"bytes"
    _end(second)
    assert find_mount(str(mountpoint)) is None


def test_what_killed_processes_left_is_used_and_ended_by_the_next(user, mountpoint):
    first = user()
    daemon = _daemon(mountpoint)
    first.kill()
    first.wait(_PATIENCE_S)
    second = user()
    assert _daemon(mountpoint) == daemon
    _end(second)
    assert find_mount(str(mountpoint)) is None


def test_a_daemon_that_died_is_replaced_by_the_next_process(user, mountpoint):
    first = user()
    os.kill(_daemon(mountpoint), signal.SIGKILL)
    second = user()
    assert _read(mountpoint) == b"bytes"
    _end(second)
    _end(first)
    assert find_mount(str(mountpoint)) is None


def test_a_mount_that_somebody_made_stays(mounted, source):
    daemon: Daemon = mounted()
    with SharedMount(str(source), daemon.mountpoint) as shared:
        assert shared.figures()["daemon"] == daemon.pid
    assert daemon.mount is not None


def test_other_arguments_for_a_shared_mount_are_refused(user, source, mountpoint):
    user()
    shared = SharedMount(str(source), str(mountpoint), "--cache-timeout=7")
    with pytest.raises(MountError, match="with another source or other options"):
        shared.enter()
    shared.leave()
    assert _read(mountpoint) == b"bytes"


def test_the_error_of_a_mount_that_fails_reaches_the_process(tmp_path):
    with pytest.raises(MountError, match="gone"):
        SharedMount(str(tmp_path / "gone"), str(tmp_path / "mnt")).enter()
