"""A busy Python does not stop leased reads.

A program serves a mount by `zcfuse.mount` and then sleeps in C for five seconds while it holds the
GIL. Both sides append lines to one file; the order of the lines shows which was first.
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
from tests.integration.conftest import write
from tests.integration.counts import eventually
from tests.support import find_mount, requires
from tests.support._kernel import abort, detach
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

BYTES = os.urandom(1 << 20)

# SOURCE MOUNTPOINT PATH ORDER: mounts, and on SIGUSR1 holds the GIL for five seconds.
BUSY = """
import ctypes, os, signal, sys
import trio, zcfuse

source, mountpoint, path, order = sys.argv[1:]

def note(line):
    fd = os.open(order, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line + b"\\n")
    os.close(fd)

async def main():
    options = zcfuse.MountOptions(path=path, cache_timeout=1000)
    with trio.open_signal_receiver(signal.SIGUSR1, signal.SIGTERM) as signals:
        async with zcfuse.mount(zcfuse.Mirror(source), mountpoint, options):
            note(b"mounted")
            async for number in signals:
                if number == signal.SIGTERM:
                    return
                note(b"busy")
                ctypes.PyDLL(None).usleep(5_000_000)
                note(b"free")

trio.run(main)
"""
READ = """
data = os.pread(fd, 4 << 20, 0)
order = os.open({order!r}, os.O_WRONLY | os.O_APPEND)
os.write(order, b"read\\n")
"""


class Program:
    """The program above as a child, and a client of its mount with the file open."""

    def __init__(self, base: str, path: str) -> None:
        self.order = f"{base}/order-{path}"
        self.mountpoint = f"{base}/mnt-{path}"
        os.mkdir(self.mountpoint)
        argv = [sys.executable, "-c", BUSY, f"{base}/source", self.mountpoint, path, self.order]
        self.process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": CHECKOUT})
        assert eventually(lambda: self.lines() == ["mounted"])
        self.client = Client(self.mountpoint)
        self.client.value("fd = opened('file')")

    def lines(self) -> list[str]:
        """The events so far, in order."""
        with contextlib.suppress(FileNotFoundError), open(self.order) as file:
            return file.read().split()
        return []

    def close(self) -> None:
        """End client, program and mount."""
        self.client.close()
        self.process.terminate()
        try:
            assert self.process.wait(20) == 0
        finally:
            self.process.kill()
            if mount := find_mount(self.mountpoint):
                abort(mount)
                detach(self.mountpoint)


@pytest.fixture
def programs(tmp_path) -> Iterator[dict[str, Program]]:
    """One program per path, all busy at once."""
    (tmp_path / "source").mkdir()
    write(str(tmp_path / "source"), "file", BYTES)
    with contextlib.ExitStack() as ends:
        made = {}
        for path in ("upcall", "pool", "mmap", "splice", "auto"):
            made[path] = Program(str(tmp_path), path)
            ends.callback(made[path].close)
        yield made


def test_reads_with_a_lease_finish_while_python_holds_the_gil(programs) -> None:
    for program in programs.values():
        program.process.send_signal(signal.SIGUSR1)
    assert eventually(lambda: all("busy" in one.lines() for one in programs.values()))
    for program in programs.values():
        program.client.begin(READ.format(order=program.order))
    for program in programs.values():
        assert program.client.finish()[0] == "value"
        assert program.client.value("data") == BYTES
    assert eventually(lambda: all("free" in one.lines() for one in programs.values()))
    with_a_lease = {path: one.lines() for path, one in programs.items() if path != "upcall"}
    assert set(map(tuple, with_a_lease.values())) == {("mounted", "busy", "read", "free")}
    # The counter-proof: a client that needs Python waits.
    assert programs["upcall"].lines() == ["mounted", "busy", "free", "read"]


PARENT = """
import os, subprocess, sys
import trio, zcfuse

async def main():
    options = zcfuse.MountOptions(path=sys.argv[3])
    async with zcfuse.mount(zcfuse.Mirror(sys.argv[1]), sys.argv[2], options):
        # A child that takes along whatever it can.
        child = subprocess.Popen(["sleep", "30"], close_fds=False, start_new_session=True)
        print(child.pid, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("path", ["naive", "splice"])
def test_a_child_of_the_daemon_does_not_keep_a_dead_connection_alive(
    source, mountpoint, path
) -> None:
    write(source, "file", BYTES)
    argv = [sys.executable, "-c", PARENT, source, mountpoint, path]
    env = {**os.environ, "PYTHONPATH": CHECKOUT}
    program = subprocess.Popen(argv, stdout=subprocess.PIPE, env=env)
    client = Client(mountpoint)
    try:
        assert program.stdout is not None
        child = int(program.stdout.readline())
        inherited = [os.readlink(f"/proc/{child}/fd/{fd}") for fd in range(3)]
        # While it starts, it has a library open.
        assert eventually(lambda: len(os.listdir(f"/proc/{child}/fd")) == len(inherited))
        program.kill()
        program.wait(20)
        assert client.outcome("os.stat(root) and None") == "ENOTCONN"
        os.kill(child, signal.SIGKILL)
    finally:
        client.close()
        program.kill()
        program.communicate(timeout=20)
        detach(mountpoint)
