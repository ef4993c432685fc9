"""A forked child of a program that mounts does not keep the mount alive when the program is killed.

docs/semantics.md, "When the daemon ends".
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.conftest import command, write
from tests.support import requires
from tests.support._rings import rings_on
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

# Mounts, then forks a worker that lives on without exec, as those of a DataLoader do.
PROGRAM = """
import os, signal, sys, zcfuse
source, mountpoint, path, transport = sys.argv[1:]
with zcfuse.serve(zcfuse.Mirror(source), mountpoint, path=path, transport=transport):
    worker = os.fork()
    if worker == 0:
        signal.pause()
        os._exit(0)
    print(worker, flush=True)
    signal.pause()
"""
SEEN_S = 10.0
RING = pytest.param("pool", "uring", marks=[requires("root", "io_uring"), pytest.mark.ring])


@pytest.mark.parametrize(
    ("path", "transport"), [("auto", "dev"), ("upcall", "dev"), ("naive", "dev"), RING]
)
def test_a_killed_program_ends_its_mount_whatever_children_live(
    source: str, mountpoint: str, path: str, transport: str
) -> None:
    write(source, "file", b"hello")
    with rings_on() if transport == "uring" else contextlib.nullcontext():
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, source, mountpoint, path, transport],
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        try:
            assert program.stdout is not None
            worker = int(program.stdout.readline())
            command("cmp", f"{mountpoint}/file", f"{source}/file")
            program.kill()
            program.wait(SEEN_S)
            told = stat_error(f"{mountpoint}/file")
            os.kill(worker, signal.SIGKILL)  # it has lived until now
            # The second is the kernel's word for a request that was in a ring when it ended.
            assert "Transport endpoint is not connected" in told or "connection abort" in told
        finally:
            program.kill()
            program.communicate(timeout=SEEN_S)
            command("umount", "--lazy", mountpoint)


def stat_error(path: str) -> str:
    """What stat(1) says of a path that cannot be looked at; bounded."""
    seen = subprocess.run(
        ["stat", path],
        capture_output=True,
        text=True,
        timeout=SEEN_S,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return seen.stderr
