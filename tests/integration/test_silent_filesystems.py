"""A filesystem inside the source stops to answer: docs/semantics.md, "Filesystems that do not
answer"."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.program import Program
from tests.support import Daemon, Mounter, eventually, requires
from tests.support._silent_fuse import DEAF, SWALLOW, SilentFilesystem
from tests.support._user import CHECKOUT

pytestmark = requires("root", "fuse")

BOUND_S: Final = 10
CLOSE: Final = {"x86_64": 3, "aarch64": 57}[os.uname().machine]  # the system call
END_S: Final = 30

LOOK: Final = """
import errno, os, sys
calls = {
    "stat": lambda: os.stat(f"{inner}/file"), "missing": lambda: os.stat(f"{inner}/other"),
    "open": lambda: open(f"{inner}/file").close(), "list": lambda: os.listdir(inner),
    "xattr": lambda: os.listxattr(inner), "itself": lambda: os.stat(inner),
}
inner, name = sys.argv[1:]
try:
    calls[name]()
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("answered")
"""
# Each name in `asked` is looked up by Python.
PROGRAM: Final = """
class Asked(Dir):
    async def lookup(self, name, who):
        return Bytes(b"")

    async def list(self, who):
        return []

tree = Dir({{"far": Mirror({far!r}), "asked": Asked()}})
"""
# The errors of a client whose mount goes away meanwhile.
ABORTED: Final = frozenset({"ENOTCONN", "ECONNABORTED", "ECANCELED", "ENOENT"})
CALLS: Final = ("stat", "missing", "open", "list", "xattr", "itself")


@contextlib.contextmanager
def lookers(daemon: Daemon, *calls: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Clients that look into the silent filesystem, all at a time; killed where they remain."""
    with contextlib.ExitStack() as ends:
        clients = []
        for call in calls:
            argv = [sys.executable, "-c", LOOK, daemon.path("inner"), call]
            client = ends.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
            ends.callback(client.kill)
            clients.append(client)
        yield clients


def ask_for_others(daemon: Daemon) -> None:
    """Do as a client that has nothing to do with the silent filesystem; each ends in time."""
    for argv in (
        ["stat", daemon.path("file")],
        ["cat", daemon.path("file")],
        ["ls", daemon.path("dir")],
        [sys.executable, "-m", "zcfuse", "status", daemon.mountpoint],
        [sys.executable, "-m", "zcfuse", "explain", daemon.path("file")],
    ):
        subprocess.run(argv, check=True, capture_output=True, timeout=BOUND_S, cwd=CHECKOUT)


def wait_for_refusal(daemon: Daemon) -> None:
    """Wait until a client got the error of a filesystem that does not answer."""
    end = time.monotonic() + END_S
    while True:
        far = daemon.status()["control"]["far"]
        if far["timed_out"] + far["refused"]:
            return
        assert time.monotonic() < end, far


def unmount(daemon: Daemon) -> None:
    """Unmount, even while clients wait inside."""
    command = [
        sys.executable,
        "-m",
        "zcfuse",
        "umount",
        "--force",
        "--wait",
        "0",
        daemon.mountpoint,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=2 * END_S, cwd=CHECKOUT)


def has_ended(daemon: Daemon) -> bool:
    """Whether the daemon runs no more: gone, or a zombie with a thread inside a kernel's wait."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{daemon.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] in "ZX"
    return True


def wait_until_ended(daemon: Daemon) -> None:
    end = time.monotonic() + END_S
    while not has_ended(daemon):
        assert time.monotonic() < end, "the daemon did not end"
        daemon.process.poll()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    for name in ("dir", "inner"):
        (path / name).mkdir(parents=True)
    (path / "file").write_bytes(b"bytes")
    return path


@pytest.mark.parametrize("mode", [SWALLOW, DEAF])
@pytest.mark.parametrize("lease", [True, False], ids=["leased", "not leased"])
def test_a_filesystem_that_does_not_answer_holds_up_its_own_clients_only(
    mounted: Mounter, source: Path, mode: str, lease: bool
) -> None:
    options = () if lease else ("--no-directory-lease",)
    with SilentFilesystem(str(source / "inner"), mode) as silent:
        daemon = mounted(*options, source=str(source))
        daemon.run("stat", daemon.path("inner/file"))
        silent.silence()
        with lookers(daemon, *CALLS) as clients:
            ask_for_others(daemon)
            wait_for_refusal(daemon)
            unmount(daemon)
            assert daemon.mount is None
            wait_until_ended(daemon)
            said = {client.communicate(timeout=END_S)[0].decode().strip() for client in clients}
        assert "ETIMEDOUT" in said
        assert said <= {"ETIMEDOUT", "answered", *ABORTED}
        silent.end()
        assert daemon.wait() == 0


def test_a_source_that_does_not_answer_keeps_nobody_from_status_and_umount(
    mounted: Mounter, tmp_path: Path
) -> None:
    source = tmp_path / "silent"
    source.mkdir()
    with SilentFilesystem(str(source), SWALLOW) as silent:
        daemon = mounted("--no-directory-lease", source=str(source))
        daemon.run("stat", daemon.path("file"))
        silent.silence()
        with lookers(daemon, "itself"):
            daemon.status()
            unmount(daemon)
            assert daemon.mount is None
        wait_until_ended(daemon)
        silent.end()
        assert daemon.wait() == 0


def test_two_mounts_in_one_another_answer_and_end(mounted: Mounter, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "other").mkdir(parents=True)
        (tmp_path / f"mnt-{name}").mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    first, second = (
        mounted(source=str(tmp_path / name), mountpoint=str(tmp_path / f"mnt-{name}"))
        for name in ("one", "two")
    )
    bound: list[str] = []
    try:
        for source, shown in (("one", second), ("two", first)):
            place = str(tmp_path / source / "other")
            subprocess.run(
                ["mount", "--bind", shown.mountpoint, place], check=True, timeout=BOUND_S
            )
            bound.append(place)
        for daemon, other in ((first, b"two"), (second, b"one")):
            found = daemon.run("cat", daemon.path("other/file"), timeout=BOUND_S)
            assert found.stdout == other
            daemon.run("ls", "-l", daemon.path("other"), timeout=BOUND_S, check=False)
            ask = daemon.path("other/other/file")
            daemon.run("stat", ask, timeout=END_S, check=False)
            daemon.status()
    finally:
        for place in bound:
            subprocess.run(["umount", "-l", place], check=True, timeout=BOUND_S)
    for daemon in (first, second):
        unmount(daemon)
        assert daemon.wait() == 0


def test_a_close_that_is_never_answered_holds_up_nobody(tmp_path: Path, mountpoint: str) -> None:
    far = tmp_path / "far"
    far.mkdir()
    with SilentFilesystem(str(far), SWALLOW) as silent:
        program = Program(PROGRAM.format(far=str(far)), mountpoint, str(tmp_path / "log"))
        subprocess.run(["head", "-c0", program.path("far", "file")], check=True, timeout=BOUND_S)
        silent.silence()
        assert eventually(lambda: is_closing(program.pid))
        for number in range(10):
            # Python answers, so the relay thread works.
            path = program.path("asked", f"{number}")
            subprocess.run(["stat", path], check=True, capture_output=True, timeout=BOUND_S)
        silent.end()
        program.end()


def is_closing(pid: int) -> bool:
    """Whether the thread that closes files waits in a close(2)."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text() == "zcfuse-tidy\n":
            return (task / "syscall").read_text().split()[0] == str(CLOSE)
    return False
