"""An ordinary user: mounts by fusermount3, and everything except passthrough."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.integration.client import Client
from tests.integration.conftest import CACHED_PATHS
from tests.integration.counts import counts
from tests.support import OrdinaryUser, find_mount, requires

pytestmark = requires("ordinary user", "fusermount3")

SIZE = 3 << 20
WHOLE = f"by_read('file', [(0, {SIZE}), (12_345, 77_777), ({SIZE - 1}, 10)])"


@pytest.fixture
def theirs(ordinary_user: OrdinaryUser, mounted):
    """Mounts as the user: a daemon, and the contents of the user's file."""
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    made = ordinary_user.run(
        "sh", "-c", 'head -c "$1" /dev/urandom > "$0"', f"{source}/file", str(SIZE)
    )
    assert made.returncode == 0, made.stderr

    def mount(*options: str, **more):
        return mounted(*options, source=source, mountpoint=mountpoint, user=ordinary_user, **more)

    return mount


def answers(daemon) -> tuple[object, object]:
    """The answers of the mount and of the source, for the user."""
    mount, native = Client(daemon.mountpoint, daemon), Client(daemon.source, uid=daemon.user.uid)
    try:
        return mount.outcome(WHOLE), native.outcome(WHOLE)
    finally:
        mount.close()
        native.close()


@pytest.mark.parametrize("path", ["naive", "upcall", *CACHED_PATHS])
def test_every_path_but_passthrough_is_an_ordinary_user_s_too(theirs, path: str) -> None:
    daemon = theirs("--path", path)
    found, native = answers(daemon)
    assert found == native
    after = counts(daemon)
    assert after.served(path) > 0
    assert sum(after.paths().values()) == after.reads


def test_auto_reads_without_passthrough_and_says_why(theirs) -> None:
    daemon = theirs()
    found, native = answers(daemon)
    assert found == native
    after = counts(daemon)
    assert after.opens == {"cached": 1}
    assert after.fallbacks["passthrough_not_permitted"] == 1


def test_small_socket_buffers_lose_nothing(theirs) -> None:
    daemon = theirs("--path", "upcall", env={"ZCFUSE_FAULTS": "setsockopt:EPERM"})
    found, native = answers(daemon)
    assert found == native


def test_fusermount3_unmounts_it_and_the_daemon_ends(theirs, ordinary_user: OrdinaryUser) -> None:
    daemon = theirs()
    result = ordinary_user.run("fusermount3", "-u", daemon.mountpoint)
    assert result.returncode == 0, result.stderr
    assert daemon.wait() == 0
    assert daemon.mount is None


def test_the_status_socket_is_its_owner_s_alone(theirs, ordinary_user: OrdinaryUser) -> None:
    daemon = theirs()
    mount = daemon.mount
    places = [f"/run/user/{ordinary_user.uid}/zcfuse", f"/tmp/zcfuse-{ordinary_user.uid}"]
    places = [place for place in places if os.path.exists(place)]
    name = f"{mount.major}-{mount.minor}.sock"
    found = [f"{place}/{name}" for place in places if os.path.exists(f"{place}/{name}")]
    assert len(found) == 1
    assert stat.S_IMODE(os.stat(found[0]).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(found[0])).st_mode) == 0o700
    assert os.stat(found[0]).st_uid == ordinary_user.uid


@requires("root")
def test_another_user_is_not_told_the_status(theirs, ordinary_user: OrdinaryUser) -> None:
    daemon = theirs()
    stranger = OrdinaryUser(ordinary_user.home, 12345, 12345, ordinary_user.mountinfo_pid)
    result = stranger.run(
        *("env", f"PYTHONPATH={os.getcwd()}"),
        *(os.sys.executable, "-m", "zcfuse", "status", daemon.mountpoint),
    )
    assert result.returncode != 0
    assert result.stdout == ""
    assert daemon.status()["pid"] == daemon.pid


@requires("root")
def test_other_users_are_kept_out_of_the_mount(theirs, ordinary_user: OrdinaryUser) -> None:
    daemon = theirs()
    assert find_mount(daemon.mountpoint, ordinary_user.mountinfo_pid) is not None
    enter = ["nsenter", f"--mount=/proc/{ordinary_user.mountinfo_pid}/ns/mnt"]
    result = subprocess.run(
        [*enter, "ls", daemon.mountpoint], capture_output=True, timeout=20, check=False
    )
    assert b"Permission denied" in result.stderr
