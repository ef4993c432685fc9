"""FUSE over io_uring: the same answers, no delays, and a bounded end."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.integration.client_process import digest
from tests.integration.conftest import serving, write
from tests.integration.counts import counts, eventually
from tests.support import Daemon, abort, find_mount, requires
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

pytestmark = [
    requires("root", "fuse", "io_uring"),
    pytest.mark.usefixtures("ring_switch"),
    pytest.mark.ring,
]

DEPTH: Final = 8
# With this many refusals at least one queue has no entry, in any order of registering.
ONE_QUEUE_REFUSED: Final = (DEPTH - 1) * os.sysconf("SC_NPROCESSORS_CONF") + 1
BYTES: Final = os.urandom(3 << 20)
READ_BOTH: Final = f"by_direct('file', [(0, {len(BYTES)}), (4096, 4096), (40960, 100 * 1024)])"
# zcfuse waits 5 s for a busy mount before it detaches it.
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


def transport(daemon: Daemon) -> dict[str, Any]:
    return dict(counts(daemon).datapath["transport"])


@pytest.mark.parametrize("path", ["auto", "splice", "pool"])
def test_files_made_of_parts_and_holes_come_over_a_ring(shows, source, path) -> None:
    where = write(source, "file", BYTES)
    tree = """
tree = Dir({"parts": Concat([Slice(where, 1, 1 << 20), Zeros(100_000), Bytes(b"end")])})
options = MountOptions(transport="uring", path=path)
"""
    program, client = shows(tree, where=where, path=path)
    wanted = BYTES[1 : (1 << 20) + 1] + bytes(100_000) + b"end"
    assert client.value("content('parts')") == wanted
    assert client.value("os.pread(opened('parts'), 9, (1 << 20) + 99_999)") == b"\0end"
    assert program.statistics()["datapath"]["transport"]["kind"] == "uring"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pool", "pool_unlocked"),
        ("splice", "splice_not_over_uring"),
        ("mmap", "mmap_not_over_uring"),
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
    if path == "upcall":
        assert transport(daemon)["handed_over"] >= after.reads
    if path in ("pool", "splice", "mmap"):
        assert after.paths() == {"pool": after.reads}
        pool = after.datapath["paths"]["pool"]
        assert (pool["copied_in"], pool["copied_out"]) == (pool["bytes"], 0)
        assert after.reason(reason) > 0


@requires("locked memory")
@pytest.mark.parametrize("budget", ["64M", "0"])
def test_a_small_read_comes_from_locked_memory_as_far_as_the_budget_goes(
    mounted, pairs, source, budget
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--transport", "uring", "--path", "pool", "--lock-budget", budget)
    pair = pairs(daemon)
    pair.same("by_direct('file', [(n << 12, 32 << 10) for n in range(20)])")
    found, small = transport(daemon), counts(daemon).reason("pool_unlocked")
    if budget == "0":
        assert (found["locked"], small) == (0, 20)
        return
    assert found["locked"] >= found["queues"] * DEPTH * (32 << 10)
    assert small == 0
    assert memory(daemon.pid, "VmLck") >= found["locked"]
    pair.same("by_direct('file', [(0, 36 << 10)])")
    assert counts(daemon).reason("pool_unlocked") == 1


def memory(pid: int, field: str) -> int:
    """A field of proc(5)'s status, in bytes."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(f"{field}:"))


def test_the_status_shows_which_transport_it_is_and_how_full_its_queues_are(mounted) -> None:
    daemon = mounted("--transport", "uring", "--path", "pool")
    argv = [sys.executable, "-m", "zcfuse", "status", "-v", daemon.mountpoint]
    shown = daemon.run(*argv).stdout.decode()
    for word in ("uring", "reason", "queues", "depth", "entries_busy", "queue_full", "waits"):
        assert word in shown
    assert re.search(r"locked +[1-9].*KiB|locked +0", shown)


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
        ("splice", "dev", "ring_not_for_path: splice"),
        ("mmap", "dev", "ring_not_for_path: mmap"),
        pytest.param("auto", "uring", "", marks=requires("passthrough")),
    ],
)
def test_auto_takes_a_ring_where_that_pays_and_says_why_not(mounted, path, kind, why) -> None:
    found = transport(mounted("--path", path))
    assert (found["kind"], found["reason"]) == (kind, why)


# Trees of a hundred small files: whole, parts of one, behind a filter, and leased by a policy.
SMALL_FILES: Final = {
    "whole": "tree = Dir.from_paths({f'd/{n}': f'{where}/{n}' for n in range(100)})",
    "parts": "tree = Dir({'d': Dir({f'{n}': Slice(f'{where}/{n}', 1, 90) for n in range(100)})})",
    "filtered": "tree = Filter(Dir({'d': Dir({f'{n}': f'{where}/{n}' for n in range(101)})}),"
    " hide=['100'])",
    "leased": """
class Leasing(Dir):
    leases = True
    async def lookup(self, name, who):
        return Leased(Dir({f"{n}": f"{where}/{n}" for n in range(100)}), for_everyone=True)
    async def list(self, who):
        return ["d"]
tree = Leasing()
""",
}


@requires("passthrough")
@pytest.mark.parametrize("kind", SMALL_FILES)
def test_auto_takes_a_ring_for_small_files_that_a_program_describes(shows, where, kind) -> None:
    program, client = shows(SMALL_FILES[kind], where=where)
    client.value("os.stat(p('d/0')).st_size")
    before = program.statistics()["datapath"]
    begin = int(kind == "parts")
    wanted = [(b"%d" % n * 10)[begin:] for n in range(100)]
    assert client.value("[content(f'd/{n}') for n in range(100)]") == wanted
    after = program.statistics()["datapath"]
    found = after["transport"]
    assert (found["kind"], found["reason"]) == ("uring", "")
    assert found["ring_requests"] - before["transport"]["ring_requests"] >= 100
    for opcode in ("LOOKUP", "OPEN", "READ"):
        assert after["upcalls"].get(opcode, 0) == before["upcalls"].get(opcode, 0)


@pytest.mark.parametrize(
    "entry", ["Slice(where, 1, 1 << 20)", "Concat([where, where])", "Zeros(1 << 16)"]
)
@requires("passthrough")
def test_auto_takes_no_ring_for_large_parts(shows, source, entry) -> None:
    where = write(source, "file", BYTES)
    program, _ = shows(f"tree = Dir({{'parts': {entry}}})", where=where)
    found = program.statistics()["datapath"]["transport"]
    assert (found["kind"], found["reason"]) == ("dev", "ring_parts")


def test_reads_of_parts_need_no_memory_beyond_the_ring_s_entries(shows, source) -> None:
    where = write(source, "file", BYTES)
    runs = [(n << 20, 1 << 20) for n in range(64)]
    program, client = shows(
        "tree = Dir({'parts': Concat([Slice(where, 1), Zeros(64 << 20)])})\n"
        "options = MountOptions(transport='uring', path='pool')",
        where=where,
    )
    before = memory(program.pid, "VmRSS")
    wanted = BYTES[1:] + bytes(64 << 20)
    for reader in ("by_read", "by_direct", "by_mmap"):
        assert client.value(f"{reader}('parts', {runs})") == [
            digest(wanted[at : at + size]) for at, size in runs
        ]
    found = program.statistics()["datapath"]["transport"]
    assert found["bytes"] <= found["queues"] * DEPTH * ((1 << 20) + (8 << 10))
    assert memory(program.pid, "VmRSS") - before <= found["bytes"]


@requires("ordinary user")
@pytest.mark.parametrize(("path", "kind"), [("auto", "dev"), ("pool", "uring")])
def test_an_ordinary_user_s_auto_takes_no_ring_for_what_splice_serves_better(
    mounted, ordinary_user, path, kind
) -> None:
    directories = {name: ordinary_user.directory(name) for name in ("source", "mountpoint")}
    daemon = mounted("--path", path, user=ordinary_user, **directories)
    found = counts(daemon).datapath["transport"]
    assert found["kind"] == kind
    assert found["reason"] == ("ring_no_passthrough" if kind == "dev" else "")


def test_without_the_right_to_leave_it_its_threads_never_become_idle(source, tmp_path) -> None:
    # RLIMIT_NICE would also permit it.
    under = ["setpriv", "--bounding-set=-sys_nice", "prlimit", "--nice=0"]
    write(source, "file", BYTES)
    with serving(tmp_path, source, "--transport", "uring", under=under) as daemon:
        daemon.run("cat", daemon.path("file"))
        found = transport(daemon)
    assert (found["sched_idle"], found["sched_idle_chosen"]) == (False, 0)
    assert "CAP_SYS_NICE" in found["sched_idle_refused"]


def test_auto_stays_with_the_device_where_no_ring_is_to_be_had(mounted) -> None:
    found = transport(mounted("--path", "pool", env={"ZCFUSE_FAULTS": "uring_setup:EPERM"}))
    assert found["kind"] == "dev"
    assert "io_uring_disabled" in found["reason"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("uring_setup:ENOMEM", "io_uring_setup"),
        ("uring_register:EINVAL", "could not register: Invalid argument"),
        (
            f"uring_register:ENOMEM:count={ONE_QUEUE_REFUSED}",
            "could not register: Cannot allocate memory",
        ),
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


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("uring_register:EINVAL", "Invalid argument"),
        (f"uring_register:ENOMEM:count={ONE_QUEUE_REFUSED}", "Cannot allocate memory"),
        ("uring_register:slow", "Connection timed out"),
    ],
)
def test_auto_goes_on_over_the_device_where_the_queues_cannot_register(
    mounted, pairs, source, fault, why
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", "pool", env={"ZCFUSE_FAULTS": fault})
    pair = pairs(daemon)
    pair.same(READ_BOTH)
    pair.same("entries()")
    found = transport(daemon)
    assert (found["kind"], found["ring_requests"]) == ("dev", 0)
    assert f"could not register: {why}" in found["reason"]


@pytest.mark.parametrize("kind", ["auto", "uring"])
def test_a_queue_goes_on_with_the_entries_that_it_could_get(mounted, pairs, source, kind) -> None:
    write(source, "file", BYTES)
    faults = {"ZCFUSE_FAULTS": f"uring_register:ENOMEM:count={DEPTH - 1}"}
    daemon = mounted("--path", "pool", "--transport", kind, env=faults)
    pairs(daemon).same(READ_BOTH)
    found = transport(daemon)
    assert (found["kind"], found["entries_refused"]) == ("uring", DEPTH - 1)


def test_a_reply_that_the_ring_does_not_take_ends_the_connection(mounted, source) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--transport", "uring", env={"ZCFUSE_FAULTS": "uring_commit:EIO:after=40"})
    daemon.python(LOAD, daemon.mountpoint, check=False)
    assert daemon.fails() == 1
    assert "a ring's queue" in daemon.log()


@pytest.mark.parametrize("fault", ["read:EIO:after=16", "recv:EIO:after=60:count=1"])
def test_a_thread_that_dies_beside_a_ring_ends_the_connection(
    mounted, clients, source, fault
) -> None:
    names = [write(source, f"file-{n}") for n in range(200)]
    by = ("--transport", "uring", "--path", "upcall", "--cache-timeout", "0")
    daemon = mounted(*by, env={"ZCFUSE_FAULTS": fault})
    client = clients(daemon)
    look = "[os.path.lexists(p(f'file-{n}')) for n in range(200)]"
    client.outcome(look)
    for name in names:
        os.unlink(name)
    # Removed names make the kernel send FORGET over /dev/fuse.
    write(source, "kept")
    client.begin(f"while True: {look}; os.stat(p('kept'))")
    assert daemon.fails() == 1
    assert client.finish()[0] == "errno"
    assert "the data path failed" in daemon.log()


@requires("ordinary user")
@pytest.mark.parametrize("fault", ["recv:EIO:after=40:count=1", "uring_commit:EIO:after=60"])
def test_an_ordinary_user_s_daemon_that_fails_over_a_ring_leaves_no_client_waiting(
    mounted, ordinary_user, fault
) -> None:
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    ordinary_user.run("sh", "-c", 'head -c 100000 /dev/zero > "$0/file"', source)
    daemon = mounted(
        *("--path", "upcall", "--transport", "uring", "--cache-timeout", "0"),
        source=source,
        mountpoint=mountpoint,
        user=ordinary_user,
        env={"ZCFUSE_FAULTS": fault},
    )
    began = time.monotonic()
    daemon.run("sh", "-c", 'while cat "$0/file"; do :; done', daemon.mountpoint)
    assert daemon.fails() == 1
    assert time.monotonic() - began < END_S


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


# SIGTERM waits while the mount is busy, so once is enough.
@pytest.mark.parametrize(
    ("how", "by"),
    [
        *itertools.product(
            ["umount", "SIGKILL", "abort"],
            [("pool",), ("upcall",), ("pool", "--directory-lease", "--cache-timeout", "0")],
        ),
        ("SIGTERM", ("pool",)),
    ],
)
def test_an_end_under_load_comes_in_time_for_daemon_and_clients(mounted, source, how, by) -> None:
    for n in range(20):
        write(source, f"file-{n}", BYTES[: n * 50_000])
    daemon = mounted("--transport", "uring", "--path", *by)
    with load(daemon) as clients:
        assert eventually(lambda: transport(daemon)["ring_requests"] > 500)
        began = time.monotonic()
        if how == "SIGKILL":
            assert daemon.kill() == -signal.SIGKILL
        elif how == "SIGTERM":
            daemon.unmount()
        elif how == "umount":
            umount = [sys.executable, "-m", "zcfuse", "umount", "--force", daemon.mountpoint]
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
