"""`zcfuse warm`: the pages in memory afterwards, by the kernel's count."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cli.conftest import run_zcfuse
from tests.integration.conftest import PASSTHROUGH, kernel_mount, write
from tests.integration.counts import eventually
from tests.support import Daemon, OrdinaryUser, requires
from tests.support._user import CHECKOUT
from zcfuse.cli._output import size as size_text
from zcfuse.linux._mapping import Mapping, data_ranges

pytestmark = requires("mounting", "kernel 6.5")  # cachestat(2)

SIZE: Final = 3 << 20
PAGE: Final = os.sysconf("SC_PAGE_SIZE")

# Keep the file open first, so that only the command decides what is cached.
WARM: Final = """
import json, os, subprocess, sys
from zcfuse.audit import cachestat
mounted, backing = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
os.fsync(backing)
os.posix_fadvise(backing, 0, 0, os.POSIX_FADV_DONTNEED)
for _ in range(2):
    done = subprocess.run([sys.executable, "-m", "zcfuse", "warm", "--json", sys.argv[1]],
        capture_output=True)
    told = json.loads(done.stdout)
    cached = [cachestat(fd).cached_bytes for fd in (mounted, backing)]
    print(json.dumps([done.returncode, told["warmed"], cached, done.stderr.decode()]))
"""


def make(source: str, name: str, size: int = SIZE) -> str:
    return write(source, name, random.Random(name).randbytes(size))


def make_blank(source: str, name: str, size: int) -> str:
    return write(source, name, bytes(size))


def drop(path: str) -> None:
    """Take a file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def in_core(path: str, length: int) -> int:
    fd = os.open(path, os.O_RDONLY)
    mapping = Mapping(fd, 0, length)
    os.close(fd)
    try:
        return mapping.in_core() * PAGE
    finally:
        mapping.close()


def locked(daemon: Daemon) -> int:
    """The daemon's locked bytes, by the kernel."""
    with open(f"/proc/{daemon.pid}/status") as file:
        found = re.search(r"^VmLck:\s*(\d+) kB", file.read(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def locks(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["locks"]
    return found


@pytest.mark.parametrize("path", ["naive", "upcall", "pool", "splice", PASSTHROUGH])
def test_the_cache_that_serves_readers_holds_the_file_and_no_other_does(
    mounted, source, path: str
) -> None:
    backing = make(source, "file")
    daemon = mounted("--path", path)
    result = daemon.python(WARM, daemon.path("file"), backing)
    first, again = map(json.loads, result.stdout.splitlines())
    expected = [0, SIZE] if path == "passthrough" else [SIZE, 0]
    assert (first[0], first[2]) == (0, expected)
    assert first[1]["read"] + first[1]["resident"] == SIZE
    assert first[1]["spared"] == (0 if path == "passthrough" else first[1]["read"])
    # The kernel may reclaim a page in between.
    assert again[1]["resident"] + again[1]["read"] == SIZE
    assert again[1]["read"] <= SIZE // 16
    assert again[2] == expected
    assert first[3].count("\n") == again[3].count("\n") == 1


def test_what_was_behind_the_mount_before_stays_there(mounted, source) -> None:
    backing = make(source, "file")
    with open(backing, "rb") as file:
        file.read()
    daemon = mounted("--path", "splice")
    assert run_zcfuse("warm", daemon.path("file")).returncode == 0
    assert in_core(backing, SIZE) == SIZE


def test_holes_are_left_out_and_directories_are_gone_through(mounted, source) -> None:
    os.makedirs(f"{source}/a/b")
    make(source, "a/b/deep")
    make(source, "top", 5000)
    os.symlink("top", f"{source}/link")
    with open(f"{source}/a/sparse", "wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * PAGE)
    with open(f"{source}/a/sparse", "rb") as opened:
        data = sum(size for _, size in data_ranges(opened.fileno(), 0, 64 << 20))
    daemon = mounted()
    told = json.loads(run_zcfuse("warm", "--json", daemon.mountpoint).stdout)
    assert (told["files"], told["bytes"]) == (3, SIZE + 5000 + (64 << 20))
    assert told["warmed"]["holes"] == (64 << 20) - data
    assert told["warmed"]["read"] + told["warmed"]["resident"] == SIZE + 5000 + data


def test_a_path_in_no_mount_is_warmed_too_but_nobody_locks_it(tmp_path: Path) -> None:
    path = make(str(tmp_path), "plain")
    drop(path)
    result = run_zcfuse("warm", path)
    assert (result.returncode, result.stdout) == (0, "")
    assert "1 file, 3.0 MiB" in result.stderr
    assert in_core(path, SIZE) == SIZE
    result = run_zcfuse("warm", "--lock", "1G", path)
    assert result.returncode == 1
    assert "in no zcfuse mount" in result.stdout
    assert "0 B locked" in result.stderr


def test_what_cannot_be_warmed_is_named_and_the_rest_is_warmed(mounted, source) -> None:
    make(source, "good")
    daemon = mounted()
    missing = daemon.path("missing")
    result = run_zcfuse("warm", missing, daemon.path("good"), "/dev/null")
    assert result.returncode == 1
    assert f"{missing}: No such file or directory" in result.stdout
    assert "/dev/null: neither a regular file nor a directory" in result.stdout
    assert "3.0 MiB" in result.stderr
    assert "2 could not be fully warmed" in result.stderr


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_warms_and_locks_in_a_mount_of_its_own(
    ordinary_user: OrdinaryUser, mounted
) -> None:
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    for name, size in (("file", SIZE), ("closed", 10), ("huge", 12 << 20)):
        write(source, name, bytes(size))
        os.chown(f"{source}/{name}", ordinary_user.uid, ordinary_user.gid)
    write(source, "root's", bytes(SIZE))
    os.chmod(f"{source}/closed", 0)
    daemon = mounted(source=source, mountpoint=mountpoint, user=ordinary_user)
    result = run_zcfuse("warm", "--json", mountpoint, user=ordinary_user)
    told = json.loads(result.stdout)
    assert told["failures"] == [[f"{mountpoint}/closed", "Permission denied"]]
    # The kernel reports a file's pages in memory only to its owner, who may be running the tests.
    unknown = SIZE if os.geteuid() == 0 else 0
    assert told["warmed"]["read"] + told["warmed"]["resident"] == 2 * SIZE - unknown + (12 << 20)
    assert told["warmed"]["unknown"] == unknown
    assert result.returncode == 1
    result = run_zcfuse("warm", "--lock", "1G", f"{mountpoint}/huge", user=ordinary_user)
    held = daemon.status()["locks"]
    if result.returncode:
        assert "RLIMIT_MEMLOCK" in result.stdout
    assert f"; {size_text(0 if held is None else held['bytes'])} locked" in result.stderr


def test_a_terminal_is_shown_a_bar_and_a_pipe_only_the_last_line(mounted, source) -> None:
    make(source, "file")
    daemon = mounted()
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "zcfuse", "warm", daemon.path("file")]
    environment = {**os.environ, "PYTHONPATH": CHECKOUT, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(command, stderr=follower, timeout=40, env=environment, cwd=CHECKOUT)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "100%" in shown
    assert "MiB" in shown
    assert "zcfuse warm: 1 file" in shown


@requires("locked memory", "root")
def test_a_locked_file_is_locked_by_the_daemon_until_it_is_unlocked(mounted, source) -> None:
    backing = make(source, "file")
    make(source, "other")
    daemon = mounted()
    before = locked(daemon)
    assert run_zcfuse("warm", "--lock", "1G", daemon.path("file")).returncode == 0
    assert locked(daemon) == before + SIZE
    told = locks(daemon)
    assert (told["files"], told["bytes"], told["present"]) == (1, SIZE, SIZE)
    drop(backing)
    assert in_core(backing, SIZE) == SIZE
    again = json.loads(run_zcfuse("warm", "--lock", "1G", "--json", daemon.path("file")).stdout)
    assert again["locked"] == {"locked": 0, "held": SIZE, "left_out": 0}
    assert "kept in memory" in run_zcfuse("status", "-v", daemon.mountpoint).stdout
    result = run_zcfuse("warm", "--unlock", daemon.path("file"))
    assert (result.returncode, result.stderr) == (0, "zcfuse warm: 1 file, 3.0 MiB unlocked\n")
    assert locks(daemon) is None
    assert eventually(lambda: locked(daemon) <= before)


@requires("locked memory", "root")
def test_only_as_much_is_locked_as_was_allowed_and_the_rest_is_named(mounted, source) -> None:
    for number in range(3):
        make(source, f"file-{number}")
    daemon = mounted("--lock-budget", "32M")
    result = run_zcfuse("warm", "--lock", "4M", daemon.mountpoint)
    assert result.returncode == 1
    assert locks(daemon)["bytes"] == 4 << 20
    assert "4.0 MiB locked; 5.0 MiB not locked" in result.stderr
    assert f"{daemon.path('file-2')}: over --lock 4.0 MiB" in result.stdout
    assert run_zcfuse("warm", "--unlock-all", daemon.mountpoint).returncode == 0
    assert locks(daemon) is None
    make_blank(source, "large", 40 << 20)
    result = run_zcfuse("warm", "--lock", "1G", daemon.path("large"))
    assert result.returncode == 1
    assert "over the mount's lock budget of 32.0 MiB" in result.stdout
    used, limit = daemon.status()["datapath"]["lock_budget"]
    assert locks(daemon)["bytes"] <= used <= limit == 32 << 20
    assert used > limit - (3 << 20)


@requires("locked memory", "root")
def test_a_locked_file_that_is_truncated_or_replaced_harms_nobody_and_is_told(
    mounted, source, clients
) -> None:
    cut, replaced = make(source, "cut"), make(source, "replaced")
    daemon = mounted("--cache-timeout", "0")
    assert run_zcfuse("warm", "--lock", "1G", daemon.mountpoint).returncode == 0
    os.truncate(cut, 5000)
    os.rename(make(source, "new", 5000), replaced)
    notes = {file["path"]: file["note"] for file in locks(daemon)["listed"]}
    assert notes["cut"].startswith("truncated")
    assert notes["replaced"].startswith("replaced")
    client = clients(daemon)
    assert client.value("len(content('cut')), len(content('replaced'))") == (5000, 5000)
    assert "truncated" in run_zcfuse("status", "-v", daemon.mountpoint).stdout


@requires("locked memory", "root")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_is_ended_leaves_nothing_locked_that_status_does_not_tell(
    mounted, source, how: int
) -> None:
    for number in range(4):
        make_blank(source, f"file-{number}", 20 << 20)
    daemon = mounted()
    command = [sys.executable, "-m", "zcfuse", "warm", "--lock", "1G", daemon.mountpoint]
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    before = locked(daemon)
    client = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=CHECKOUT)
    eventually(lambda: locked(daemon) > before or client.poll() is not None)
    client.send_signal(how)
    _, errors = client.communicate(timeout=40)
    assert eventually(
        lambda: (locks(daemon) or {"bytes": 0})["bytes"] == max(locked(daemon) - before, 0)
    )
    if client.returncode == 130:
        assert b"stay locked until the unmount" in errors
    found = locks(daemon)
    assert found is None or found["present"] == found["bytes"]


@requires("locked memory", "root")
def test_a_file_of_a_bind_mount_is_known_by_its_name_in_the_mount(
    mounted, source, tmp_path: Path
) -> None:
    os.mkdir(f"{source}/d")
    make(source, "d/file")
    daemon = mounted()
    bound = tmp_path / "bound"
    bound.mkdir()
    with kernel_mount("--bind", daemon.path("d"), str(bound)):
        assert run_zcfuse("warm", "--lock", "1G", str(bound)).returncode == 0
    assert [file["path"] for file in locks(daemon)["listed"]] == ["d/file"]


def test_what_a_program_makes_is_not_kept_and_says_so(shows) -> None:
    program, _ = shows(
        "async def read(offset, size):\n    return bytes(size)\n"
        "tree = Dir({'made': Computed(5000, read), 'bytes': Bytes(b'x' * 5000)})"
    )
    result = run_zcfuse("warm", program.mountpoint)
    assert (result.returncode, result.stdout.count("\n")) == (1, 1)
    assert f"{program.path('made')}: its bytes are made when they are read" in result.stdout
    result = run_zcfuse("warm", "--lock", "1M", program.mountpoint)
    assert f"{program.path('made')}: a program makes its bytes" in result.stdout
    assert f"{program.path('bytes')}: in memory already" in result.stdout


@requires("locked memory", "root")
def test_slices_of_one_file_are_locked_in_that_file(shows, tmp_path: Path) -> None:
    backing = make(str(tmp_path), "backing")
    program, _ = shows(
        "tree = Dir({'a': Slice(backing, 0, 8192), 'b': Slice(backing, 1 << 20, 8192)})",
        backing=backing,
    )
    told = json.loads(run_zcfuse("warm", "--lock", "1M", "--json", program.mountpoint).stdout)
    assert told["locked"]["locked"] == 16384
    drop(backing)
    assert in_core(backing, SIZE) >= 16384


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        (["--lock", "1G", "--unlock", "/tmp"], "exclude each other"),
        (["--lock", "many", "/tmp"], "not a size"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], words: str) -> None:
    result = run_zcfuse("warm", *arguments)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr


def test_unlocking_what_is_in_no_mount_is_one_line() -> None:
    result = run_zcfuse("warm", "--unlock", "/etc/hostname")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "in no zcfuse mount" in result.stderr
