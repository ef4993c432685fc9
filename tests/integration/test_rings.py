"""FUSE over io_uring: the same answers, nobody held up, and an end in time whatever ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration.conftest import write
from tests.integration.counts import Counts, counts, eventually
from tests.support import Daemon, DaemonError, abort, find_mount, requires
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

pytestmark = requires("root", "fuse", "io_uring")

PARAMETER: Final = "/sys/module/fuse/parameters/enable_uring"
DEPTH: Final = 8
BYTES: Final = os.urandom(3 << 20)
READ_BOTH: Final = f"by_direct('file', [(0, {len(BYTES)}), (4096, 4096), (40960, 100 * 1024)])"
# A mount that is busy is waited for, for 5 s, before it is detached.
END_S: Final = 15.0
LOAD: Final = """
import os, sys
root = sys.argv[1]
try:
    while names := os.listdir(root):  # empty: it is the bare mount point again
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                file.read()
except OSError:
    pass
"""
# A policy that holds lookups of slow* back until a file is there; control goes on meanwhile.
SLOW_POLICY: Final = """
import os, sys, trio
from zcfuse.control import MountOptions, _mount
from zcfuse.control._daemon import run_daemon

source, mountpoint, gate = sys.argv[1:]

class Slow(_mount._AnnouncedOperations):
    async def lookup(self, parent_inode, name, ctx):
        while name.startswith(b"slow") and not os.path.exists(gate):
            await trio.sleep(0.01)
        return await super().lookup(parent_inode, name, ctx)

_mount._AnnouncedOperations = Slow
options = MountOptions(transport="uring", path="pool", directory_lease=False)
sys.exit(run_daemon(source, mountpoint, options, ready=lambda: None, log_to=sys.stderr))
"""
# Threads of one CPU, each with a name of its own; prints how many were told that it is missing.
ASK_SLOWLY: Final = """
import concurrent.futures, os, sys
os.sched_setaffinity(0, {0})
root, first, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def missing(n):
    try:
        os.stat(os.path.join(root, f"slow-{first + n}"))
    except FileNotFoundError:
        return 1
with concurrent.futures.ThreadPoolExecutor(number) as pool:
    print(sum(pool.map(missing, range(number))))
"""


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    """The kernel's switch, for the length of a test: zcfuse itself never touches it."""
    with open(PARAMETER, encoding="ascii") as file:
        before = file.read()
    _switch("Y")
    yield
    _switch(before)


def _switch(value: str) -> None:
    with open(PARAMETER, "w", encoding="ascii") as file:
        file.write(value)


def transport(daemon: Daemon) -> dict[str, Any]:
    return dict(counts(daemon).datapath["transport"])


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pool", "unlocked buffer"),
        ("splice", "splice: not over io_uring"),
        ("mmap", "mmap: not over io_uring"),
        ("auto", "no"),
        ("upcall", "no"),
    ],
)
def test_every_byte_comes_over_a_ring_and_what_it_cannot_do_says_so(
    mounted, pairs, source, path, reason
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--transport", "uring", "--path", path)
    pair = pairs(daemon)
    pair.same(READ_BOTH)
    pair.same(f"by_mmap('file', [(0, {len(BYTES)})])")
    pair.same("entries()")
    after = counts(daemon)
    assert (transport(daemon)["kind"], transport(daemon)["depth"]) == ("uring", DEPTH)
    assert transport(daemon)["ring_requests"] > 0
    if path in ("pool", "splice", "mmap"):
        assert after.paths() == {"pool": after.reads}
        pool = after.datapath["paths"]["pool"]
        assert (pool["copied_in"], pool["copied_out"]) == (pool["bytes"], 0)
        assert after.reason(reason) > 0


def test_many_clients_at_once_read_the_same_bytes_and_names(mounted, source) -> None:
    for n in range(60):
        write(source, f"file-{n}", f"{n}".encode() * 9000)
    daemon = mounted("--transport", "uring", "--path", "pool", "--cache-timeout", "0")
    code = """
import concurrent.futures, os, sys
root = sys.argv[1]
def same(name):
    with open(os.path.join(root, name), "rb") as one:
        os.posix_fadvise(one.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return one.read() == name[5:].encode() * 9000
with concurrent.futures.ProcessPoolExecutor(12) as pool:
    print(sum(pool.map(same, os.listdir(root) * 10, chunksize=5)))
"""
    assert daemon.python(code, daemon.mountpoint, timeout=60).stdout == b"600\n"
    assert counts(daemon).datapath["upcalls_out"] == 0


@pytest.mark.parametrize(
    ("path", "kind", "why"),
    [
        ("pool", "uring", ""),
        ("splice", "dev", "path splice is not to be had over io_uring"),
        ("mmap", "dev", "path mmap is not to be had over io_uring"),
        pytest.param("auto", "uring", "", marks=requires("passthrough")),
    ],
)
def test_auto_takes_a_ring_where_that_pays_and_says_why_not(mounted, path, kind, why) -> None:
    found = transport(mounted("--path", path))
    assert (found["kind"], found["reason"]) == (kind, why)


@requires("ordinary user")
@pytest.mark.parametrize(("path", "kind"), [("auto", "dev"), ("pool", "uring")])
def test_an_ordinary_user_s_auto_takes_no_ring_for_what_splice_serves_better(
    mounted, ordinary_user, path, kind
) -> None:
    directories = {name: ordinary_user.directory(name) for name in ("source", "mountpoint")}
    daemon = mounted("--path", path, user=ordinary_user, **directories)
    found = counts(daemon).datapath["transport"]
    assert found["kind"] == kind
    assert ("splice" in found["reason"]) == (kind == "dev")


def test_auto_stays_with_the_device_where_the_kernel_has_it_switched_off(mounted) -> None:
    _switch("N")
    found = transport(mounted("--path", "pool"))
    assert found["kind"] == "dev"
    assert "switched off" in found["reason"]


def test_a_ring_that_is_demanded_and_switched_off_is_refused_in_one_line(
    mounted, mountpoint
) -> None:
    _switch("N")
    with pytest.raises(DaemonError) as refused:
        mounted("--transport", "uring")
    assert (refused.value.status, refused.value.log.count("\n")) == (1, 1)
    assert PARAMETER in refused.value.log
    assert find_mount(mountpoint) is None


def test_auto_stays_with_the_device_where_no_ring_is_to_be_had(mounted) -> None:
    found = transport(mounted("--path", "pool", env={"ZCFUSE_FAULTS": "uring_setup:EPERM"}))
    assert found["kind"] == "dev"
    assert "io_uring_disabled" in found["reason"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("uring_setup:ENOMEM", "io_uring_setup"),
        ("uring_register:EINVAL:count=1", "could not register: Invalid argument"),
        ("uring_register:EINVAL:after=12", "could not register: Invalid argument"),
        ("uring_register:slow", "could not register: Connection timed out"),
    ],
)
def test_a_ring_that_cannot_be_set_up_ends_the_mount_with_the_reason(
    source, mountpoint, fault, words
) -> None:
    argv = [sys.executable, "-m", "zcfuse", "mount", source, mountpoint, "--transport", "uring"]
    result = subprocess.run(
        argv,
        cwd=CHECKOUT,
        env={**os.environ, "ZCFUSE_FAULTS": fault},
        timeout=20,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert words in result.stderr.splitlines()[-1]
    assert eventually(lambda: find_mount(mountpoint) is None)


def test_a_reply_that_the_ring_does_not_take_ends_the_connection(mounted, source) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--transport", "uring", env={"ZCFUSE_FAULTS": "uring_commit:EIO:after=40"})
    daemon.python(LOAD, daemon.mountpoint, check=False)
    assert daemon.fails() == 1
    assert "a ring's queue" in daemon.log()


@contextlib.contextmanager
def load(daemon: Daemon, number: int = 5) -> Iterator[list[subprocess.Popen[bytes]]]:
    argv = [sys.executable, "-c", LOAD, daemon.mountpoint]
    clients = [subprocess.Popen(argv) for _ in range(number)]
    try:
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait(END_S)


@pytest.mark.parametrize("how", ["umount", "SIGTERM", "SIGKILL", "abort"])
@pytest.mark.parametrize("path", ["pool", "upcall"])
def test_an_end_under_load_comes_in_time_for_daemon_and_clients(mounted, source, how, path) -> None:
    for n in range(20):
        write(source, f"file-{n}", BYTES[: n * 50_000])
    daemon = mounted("--transport", "uring", "--path", path)
    with load(daemon) as clients:
        assert eventually(lambda: transport(daemon)["ring_requests"] > 500)
        began = time.monotonic()
        if how == "SIGKILL":
            assert daemon.kill() == -signal.SIGKILL
        elif how == "SIGTERM":
            daemon.unmount()
        elif how == "umount":
            umount = [sys.executable, "-m", "zcfuse", "umount", daemon.mountpoint]
            assert subprocess.run(umount, cwd=CHECKOUT, timeout=END_S, check=False).returncode == 0
            assert daemon.wait() == 0
        else:
            assert daemon.mount is not None
            if not abort(daemon.mount):
                detach(daemon.mountpoint)
            daemon.fails()
        for client in clients:
            client.wait(END_S)
        assert time.monotonic() - began < END_S


@contextlib.contextmanager
def slow_policy(source: str, mountpoint: str, gate: str) -> Iterator[str]:
    argv = [sys.executable, "-c", SLOW_POLICY, source, mountpoint, gate]
    child = subprocess.Popen(argv, cwd=CHECKOUT)
    try:
        assert eventually(lambda: find_mount(mountpoint) is not None)
        yield mountpoint
        child.terminate()
        assert child.wait(END_S) == 0
    finally:
        child.kill()
        child.wait(END_S)
        if find_mount(mountpoint) is not None:
            detach(mountpoint)


def status_of(mountpoint: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "zcfuse", "status", "--json", mountpoint]
    found = subprocess.run(argv, cwd=CHECKOUT, timeout=20, check=True, capture_output=True)
    return dict(Counts(json.loads(found.stdout)).datapath)


def test_slow_upcalls_hold_up_nobody_until_they_are_as_many_as_a_queue_has_entries(
    source, mountpoint, clients, tmp_path
) -> None:
    write(source, "file", BYTES)
    gate = str(tmp_path / "gate")
    asking: list[subprocess.Popen[bytes]] = []

    def ask(first: int, number: int) -> None:
        argv = [sys.executable, "-c", ASK_SLOWLY, mountpoint, str(first), str(number)]
        asking.append(subprocess.Popen(argv, stdout=subprocess.PIPE))

    def busy() -> int:
        return int(status_of(mountpoint)["transport"]["entries_busy"])

    with slow_policy(source, mountpoint, gate):
        here, there = clients(root=mountpoint), clients(root=mountpoint)
        for cpu, client in enumerate((here, there)):
            client.value(f"os.sched_setaffinity(0, {{{cpu % os.cpu_count()}}})")
            client.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
        reads = "[_direct(fd, n << 12, 4096)[0] for n in range(200)] == [4096] * 200"
        ask(0, DEPTH - 1)
        assert eventually(lambda: busy() == DEPTH - 1)
        assert here.value(reads, timeout=5)
        ask(100, 6)
        assert eventually(lambda: busy() >= DEPTH)
        here.begin(reads)
        if os.cpu_count() > 1:
            assert there.value(reads, timeout=5)
        with open(gate, "w"):
            pass
        assert here.finish(10) == ("value", True)
        assert [child.communicate(timeout=20)[0] for child in asking] == [b"7\n", b"6\n"]
        after = status_of(mountpoint)
        assert (after["transport"]["entries_busy"], after["upcalls_out"]) == (0, 0)
        assert after["transport"]["waits"] >= 5
        assert after["transport"]["queue_full"] >= 1


def test_reads_of_a_slow_backing_file_hold_up_no_other_request_of_their_cpu(
    mounted, clients, source
) -> None:
    write(source, "file", BYTES)
    write(source, "other", b"")
    faults = "preadv_nowait:EAGAIN,preadv:slow:count=8"
    daemon = mounted("--transport", "uring", "--path", "pool", env={"ZCFUSE_FAULTS": faults})
    reader, other = clients(daemon), clients(daemon)
    for client in (reader, other):
        client.value("os.sched_setaffinity(0, {0})")
    reader.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    reader.begin("[_direct(fd, n << 12, 4096)[0] for n in range(8)] == [4096] * 8")
    began = time.monotonic()
    for n in range(40):
        assert other.outcome(f"os.stat(p('missing-{n}'))") == "ENOENT"
    assert time.monotonic() - began < 2.0
    assert reader.finish(20) == ("value", True)
    assert transport(daemon)["reads_to_workers"] >= 8
