"""Every client gets an answer, whatever ends the daemon or its connection.

docs/semantics.md, "When the daemon ends". A client that waits longer than its bound fails its test.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.client import Client
from tests.integration.conftest import ALL_PATHS, CACHED_PATHS, command, write
from tests.integration.counts import counts, eventually
from tests.support import MOUNT_FUSECTL, Daemon, find_mount, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

# Errnos of a read that the daemon does not answer; after the unmount a path leads elsewhere.
# A killed daemon's ring answers a request on its way with ECANCELED.
GONE = {"ENOTCONN", "ECONNABORTED", "EIO", "ECANCELED"}
GONE_BY_PATH = {*GONE, "ENOENT"}
BYTES = os.urandom(1 << 20)
# Repeat: open, read uncached bytes, close.
FOR_EVER = "while True: by_read('file', [(0, 1 << 20)]); content('file')"
# Numbers of system calls on x86-64 and in the generic table (aarch64 and others).
READS = {"x86_64": ("17", "295", "327")}.get(os.uname().machine, ("67", "69", "286"))


@contextlib.contextmanager
def frozen(daemon: Daemon) -> Iterator[None]:
    """Stop the daemon, as if its disk did not answer."""
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        assert eventually(lambda: set(_states(daemon.pid)) == {"T"})
        yield
    finally:
        daemon.process.send_signal(signal.SIGCONT)


def _states(pid: int) -> Iterator[str]:
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", errors="replace") as file:
            yield file.read().rpartition(")")[2].split()[0]


def is_reading(client: Client) -> bool:
    """Whether the client is inside pread(2), preadv(2) or preadv2(2)."""
    with open(f"/proc/{client.process.pid}/syscall") as file:
        return file.read().split()[0] in READS


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_daemon_that_is_killed_ends_what_its_clients_wait_for(
    mounted, clients, source, path
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    readers = [clients(daemon) for _ in range(3)]
    for reader in readers:
        reader.begin(FOR_EVER)
    assert daemon.kill() == -signal.SIGKILL
    assert {reader.finish()[1] for reader in readers} <= GONE
    assert readers[0].outcome("os.listdir(root)") == "ENOTCONN"


@pytest.mark.parametrize("path", ["naive", "upcall", *CACHED_PATHS])
def test_a_daemon_that_is_killed_ends_a_read_that_it_never_answered(
    mounted, clients, source, path
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    client = clients(daemon)
    client.value("fd = opened('file')")
    with frozen(daemon):  # a running thread would answer
        client.begin("os.pread(fd, 4096, 500_000)")
        assert eventually(lambda: is_reading(client))
        daemon.kill()
    assert client.finish()[1] in GONE


@pytest.mark.parametrize(
    ("fault", "lease"),
    [
        ("read:EIO", "--directory-lease"),
        ("read:EIO", "--no-directory-lease"),
        ("recv:EIO", "--no-directory-lease"),  # Python answers these, and clients send few
    ],
)
@pytest.mark.parametrize("path", ["upcall", "splice", "auto"])
def test_a_data_path_thread_that_dies_ends_connection_and_daemon(
    mounted, clients, source, path, fault, lease
) -> None:
    write(source, "file", BYTES)
    # A mount with a ring hardly reads /dev/fuse: test_rings.py.
    by = ("--path", path, "--transport", "dev", lease)
    daemon = mounted(*by, env={"ZCFUSE_FAULTS": f"{fault}:after=60:count=1"})
    client = clients(daemon)
    client.begin(FOR_EVER)
    assert daemon.fails() == 1
    assert client.finish()[1] in GONE_BY_PATH
    assert "the data path failed" in daemon.log()
    assert daemon.mount is None


@requires("root", "private mounts")
@pytest.mark.parametrize("path", ["naive", "splice", "auto"])
def test_an_aborted_connection_ends_the_daemon_and_its_clients(
    mounted, clients, source, path
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    client = clients(daemon)
    client.begin(FOR_EVER)
    # The daemon's namespace may lack the control filesystem.
    script = f"{MOUNT_FUSECTL} && echo 1 > /sys/fs/fuse/connections/$0/abort"
    number = str(daemon.mount.connection)
    command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, number)
    assert daemon.fails() == 1
    assert client.finish()[1] in GONE_BY_PATH
    assert "aborted" in daemon.log()
    assert daemon.mount is None


DYING_WITH_FUSECTL = (
    f"set -e; {MOUNT_FUSECTL}"
    + """
"$0" -m zcfuse mount --foreground --path splice "$1" "$2" & daemon=$!
for i in $(seq 200); do grep -q " $2 " /proc/self/mountinfo && break; sleep 0.05; done
timeout 20 sh -c 'while cat "$0"; do :; done' "$2/file" 2>&1 >/dev/null | tail -n 1 >&2
status=0; wait $daemon || status=$?
grep " $2 " /proc/self/mountinfo || echo "ended $status"
"""
)


@requires("root", "private mounts")
def test_a_thread_that_dies_aborts_by_the_control_filesystem_where_there_is_one(
    source, mountpoint
) -> None:
    write(source, "file", BYTES)
    enter = ["unshare", "--mount", "--propagation", "private", "bash", "-c", DYING_WITH_FUSECTL]
    result = subprocess.run(
        [*enter, sys.executable, source, mountpoint],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ZCFUSE_FAULTS": "read:EIO:after=60:count=1", "PYTHONPATH": CHECKOUT},
        check=True,
    )
    assert result.stdout == "ended 1\n"
    assert "the data path failed" in result.stderr


@requires("root")
@pytest.mark.parametrize("path", ["naive", "pool", "auto"])
def test_a_lazy_unmount_lets_who_has_a_file_open_read_to_the_end(
    mounted, pairs, source, path
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    pair = pairs(daemon)
    pair.same("fd = opened('file')")
    command("umount", "-l", daemon.mountpoint)
    assert find_mount(daemon.mountpoint) is None
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    assert daemon.process.poll() is None
    pair.same("os.close(fd)")
    assert daemon.wait() == 0


@requires("root")
@pytest.mark.parametrize("path", ALL_PATHS)
def test_an_unmount_from_outside_ends_the_daemon_in_order(mounted, clients, source, path) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    client = clients(daemon)
    client.value("digest(content('file'))")
    command("umount", daemon.mountpoint)
    assert daemon.wait() == 0
    assert client.value("os.listdir(root)") == []


@pytest.mark.parametrize("path", ["naive", "pool"])
def test_a_busy_mount_is_let_go_after_a_bounded_wait_with_a_line(
    mounted, clients, source, path
) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", path)
    client = clients(daemon)
    client.value("fd = opened('file')")
    client.begin("while True: forget_pages(fd); os.pread(fd, 1 << 20, 0)")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "was busy" in daemon.log()
    assert "detached lazily" in daemon.log()
    assert client.finish()[1] in GONE
    assert daemon.mount is None


@pytest.mark.parametrize("lease", ["--directory-lease", "--no-directory-lease"])
def test_every_descriptor_is_given_back(mounted, pairs, source, lease) -> None:
    for n in range(50):
        write(source, f"file-{n}", BYTES[:5000])
    daemon = mounted(lease)
    pair = pairs(daemon)

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{daemon.pid}/fd"))

    pair.same("content('file-0') and None")
    assert eventually(lambda: counts(daemon).datapath["leases"] == 0)
    before = descriptors()
    pair.same("[digest(content(f'file-{n}')) for n in range(50)]")
    pair.same("[os.listdir(root) and None for n in range(50)]")
    pair.same("[os.path.lexists(p(f'missing-{n}')) for n in range(50)]")
    assert eventually(lambda: counts(daemon).datapath["leases"] == 0)
    assert eventually(lambda: descriptors() <= before)
