"""Requests that hold a ring's entries: slow policies, slow files, killed clients.

All but one entry of a queue may be stuck without delaying other clients.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest

from tests.integration.conftest import write
from tests.integration.counts import counts, eventually
from tests.support import find_mount, requires
from tests.support._kernel import detach
from tests.support._user import CHECKOUT
from zcfuse.admin.status import read_status

pytestmark = [
    requires("root", "fuse", "io_uring"),
    pytest.mark.usefixtures("ring_switch"),
    pytest.mark.ring,
]

DEPTH: Final = 8
BYTES: Final = os.urandom(3 << 20)
END_S: Final = 15.0
# A policy that delays lookups of slow* until a file exists; control continues meanwhile.
SLOW_POLICY: Final = """
import os, sys, trio
from zcfuse import MountOptions
from zcfuse.control import _mount
from zcfuse.control._daemon import run_daemon
from zcfuse.tree import Mirror

source, mountpoint, gate, path = sys.argv[1:]

class Slow(_mount.Operations):
    async def lookup(self, parent_inode, name, ctx):
        while name.startswith(b"slow") and not os.path.exists(gate):
            await trio.sleep(0.01)
        return await super().lookup(parent_inode, name, ctx)

_mount.Operations = Slow
options = MountOptions(transport="uring", path=path, cache_timeout=0, directory_lease=False)
show = lambda: Mirror(source)
sys.exit(run_daemon(show, mountpoint, options, ready=lambda shortfalls: None, log_to=sys.stderr))
"""
# Threads on one CPU, each with a different name; prints how many got ENOENT.
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


@contextlib.contextmanager
def slow_policy(
    source: str, mountpoint: str, gate: str, path: str = "pool"
) -> Iterator[Callable[[int, int], subprocess.Popen[bytes]]]:
    """A mount with that policy; returns a function that starts slow lookups: (first, clients)."""
    argv = [sys.executable, "-c", SLOW_POLICY, source, mountpoint, gate, path]
    child = subprocess.Popen(argv, cwd=CHECKOUT)
    asking: list[subprocess.Popen[bytes]] = []

    def ask(first: int, number: int) -> subprocess.Popen[bytes]:
        ask_slowly = [sys.executable, "-c", ASK_SLOWLY, mountpoint, str(first), str(number)]
        asking.append(subprocess.Popen(ask_slowly, stdout=subprocess.PIPE))
        return asking[-1]

    try:
        assert eventually(lambda: find_mount(mountpoint) is not None)
        yield ask
        child.terminate()
        assert child.wait(END_S) == 0
    finally:
        child.kill()
        child.wait(END_S)
        if find_mount(mountpoint) is not None:
            detach(mountpoint)
        for client in asking:
            client.kill()
            client.communicate(timeout=END_S)


def open_gate(gate: str) -> None:
    """Let the policy answer."""
    with open(gate, "w"):
        pass


def status_of(mountpoint: str) -> dict[str, Any]:
    return dict(msgspec.to_builtins(read_status(mountpoint))["datapath"])


def busy(mountpoint: str) -> int:
    """Entries that hold a request."""
    return int(status_of(mountpoint)["transport"]["entries_busy"])


def nothing_left(mountpoint: str) -> bool:
    """Whether all entries and upcalls are free again."""
    found = status_of(mountpoint)
    return (found["transport"]["entries_busy"], found["upcalls_out"]) == (0, 0)


def test_slow_upcalls_hold_up_nobody_until_they_are_as_many_as_a_queue_has_entries(
    source, mountpoint, clients, tmp_path
) -> None:
    write(source, "file", BYTES)
    gate = str(tmp_path / "gate")
    with slow_policy(source, mountpoint, gate) as ask:
        here, there = clients(root=mountpoint), clients(root=mountpoint)
        for cpu, client in enumerate((here, there)):
            client.value(f"os.sched_setaffinity(0, {{{cpu % os.cpu_count()}}})")
            client.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
        reads = "[_direct(fd, n << 12, 4096)[0] for n in range(200)] == [4096] * 200"
        asking = [ask(0, DEPTH - 1)]
        assert eventually(lambda: busy(mountpoint) == DEPTH - 1)
        assert here.value(reads, timeout=5)
        asking.append(ask(100, 6))
        assert eventually(lambda: busy(mountpoint) >= DEPTH)
        here.begin(reads)
        if os.cpu_count() > 1:
            assert there.value(reads, timeout=5)
        open_gate(gate)
        assert here.finish(10) == ("value", True)
        assert [child.communicate(timeout=20)[0] for child in asking] == [b"7\n", b"6\n"]
        assert nothing_left(mountpoint)
        after = status_of(mountpoint)["transport"]
        assert after["waits"] >= 5
        assert after["queue_full"] >= 1


@requires("passthrough")
def test_a_full_queue_holds_up_neither_passthrough_nor_what_the_device_brings(
    source, mountpoint, clients, tmp_path
) -> None:
    write(source, "file", BYTES)
    for n in range(50):
        write(source, f"gone-{n}")
    gate = str(tmp_path / "gate")
    with slow_policy(source, mountpoint, gate, "passthrough") as ask:
        here, there = clients(root=mountpoint), clients(root=mountpoint)
        for cpu, client in enumerate((here, there)):
            client.value(f"os.sched_setaffinity(0, {{{cpu % os.cpu_count()}}})")
        here.value("fd = os.open(p('file'), os.O_RDONLY)")
        there.value("[os.stat(p(f'gone-{n}')) and None for n in range(50)]")
        asking = ask(0, DEPTH + 4)
        assert eventually(lambda: busy(mountpoint) >= DEPTH)
        # Without an fstat, which would use the full queue.
        whole = "b''.join(os.pread(fd, 1 << 20, n << 20) for n in range(3))"
        assert here.value(f"digest({whole})", timeout=5) == here.value(f"digest({BYTES!r})")
        if os.cpu_count() > 1:
            for n in range(50):
                os.unlink(f"{source}/gone-{n}")
            assert not any(there.value("[os.path.lexists(p(f'gone-{n}')) for n in range(50)]"))
            assert eventually(lambda: forgotten(mountpoint) > 0)
        assert busy(mountpoint) >= DEPTH
        open_gate(gate)
        assert asking.communicate(timeout=20)[0] == b"12\n"
        assert nothing_left(mountpoint)


def forgotten(mountpoint: str) -> int:
    """FORGETs of both kinds, which arrive over /dev/fuse."""
    requests = status_of(mountpoint)["requests"]
    return int(requests.get("FORGET", 0)) + int(requests.get("BATCH_FORGET", 0))


def test_clients_killed_while_their_upcalls_are_out_or_wait_for_an_entry_leave_none_held(
    source, mountpoint, tmp_path
) -> None:
    gate = str(tmp_path / "gate")
    with slow_policy(source, mountpoint, gate) as ask:
        asking = [ask(0, DEPTH - 1), ask(100, 6)]
        assert eventually(lambda: busy(mountpoint) >= DEPTH)
        for client in asking:
            client.send_signal(signal.SIGKILL)
        # INTERRUPT arrives over /dev/fuse and becomes an upcall, as its request did.
        assert eventually(lambda: status_of(mountpoint)["interrupts"] >= DEPTH - 1)
        assert status_of(mountpoint)["upcalls"]["INTERRUPT"] >= DEPTH - 1
        open_gate(gate)
        for client in asking:
            assert client.wait(END_S) == -signal.SIGKILL
        assert eventually(lambda: nothing_left(mountpoint))


@pytest.mark.alone  # it bounds a time
@pytest.mark.parametrize("lease", ["--no-directory-lease", "--directory-lease"])
def test_reads_of_a_slow_backing_file_hold_up_no_other_request_of_their_cpu(
    mounted, clients, source, lease
) -> None:
    write(source, "file", BYTES)
    write(source, "other", b"")
    faults = "preadv_nowait:EAGAIN,preadv:slow:count=8"
    by = ("--transport", "uring", "--path", "pool", lease)
    daemon = mounted(*by, env={"ZCFUSE_FAULTS": faults})
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
    assert counts(daemon).datapath["reads_waited"] >= 8
    upcalls = counts(daemon).datapath["upcalls"].get("LOOKUP", 0)
    assert (upcalls == 0) == (lease == "--directory-lease")


def transport_of(daemon) -> dict[str, Any]:
    return dict(counts(daemon).datapath["transport"])
