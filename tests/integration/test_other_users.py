"""One user attacks, and another one's requests still end: docs/semantics.md, "Other users".

`make hostile` repeats each attack for minutes; a single pass belongs to the ordinary tests.
"""

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

from tests.integration.conftest import rings_on
from tests.support import Daemon, requires, skip_unless
from tests.support._user import CHECKOUT

pytestmark = [requires("root", "fuse"), pytest.mark.alone]

SECONDS: Final = float(os.environ.get("ZCFUSE_HOSTILE_SECONDS", "0"))
BOUND_S: Final = 10
ATTACKER: Final = 65534
DESCRIPTORS: Final = 256

# Each says "ready" when it stands, and stays until its standard input ends.
LEASES: Final = """
source, mount = sys.argv[1:]
signal.signal(signal.SIGIO, signal.SIG_IGN)
names = [f"leased{n}" for n in range(24 * os.cpu_count())]
held = [os.open(os.path.join(source, "own", name), os.O_RDWR | os.O_CREAT) for name in names]
for fd in held:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
def wait(name):
    while True:
        try:
            os.close(os.open(os.path.join(mount, "own", name), os.O_RDONLY))
        except OSError:
            threading.Event().wait(0.01)
for name in names:
    threading.Thread(target=wait, args=(name,), daemon=True).start()
"""
DIRECTORIES: Final = """
mount = sys.argv[2]
held = [os.open(mount, os.O_RDONLY | os.O_DIRECTORY) for _ in range(800)]
"""
# The interpreter may lie where only root reaches it.
BEGIN: Final = f"""
import fcntl, os, resource, signal, sys, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
os.setgroups([])
os.setgid({ATTACKER})
os.setuid({ATTACKER})
"""
ATTACKS: Final = {"leases": LEASES, "open directories": DIRECTORIES}
STAY: Final = (
    "\nprint('ready', flush=True)\nsys.stdin.read()\n[os.close(fd) for fd in held]\nos._exit(0)\n"
)


@contextlib.contextmanager
def attack(code: str, daemon: Daemon) -> Iterator[None]:
    """Run an attack of another user until the block ends."""
    argv = [sys.executable, "-c", BEGIN + code + STAY]
    with subprocess.Popen(
        [*argv, daemon.source, daemon.mountpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            # Not killed: an open under way ends when the leases are given back.
            process.stdin.close()
            process.wait(BOUND_S)


def ask(daemon: Daemon) -> None:
    """Do as another user does; each command ends within the bound, with an answer."""
    status = [sys.executable, "-m", "zcfuse", "status", daemon.mountpoint]
    for argv in (
        ["stat", daemon.path("file")],
        ["stat", "-f", daemon.mountpoint],
        ["cat", daemon.path("file")],
        ["ls", daemon.path("dir")],
        status,
    ):
        subprocess.run(argv, check=True, capture_output=True, timeout=BOUND_S, cwd=CHECKOUT)


@pytest.fixture(scope="module", params=["dev", "uring"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A mount for all users with few descriptors, over each transport."""
    base = Path("/tmp") / f"zcfuse-hostile-{os.getpid()}-{request.param}"
    log = str(tmp_path_factory.mktemp("hostile") / "log")
    with contextlib.ExitStack() as ends:
        if request.param == "uring":
            skip_unless("io_uring")
            ends.enter_context(rings_on())
        ends.callback(subprocess.run, ["rm", "-r", str(base)], check=False)
        for name in ("", "source", "source/dir", "source/own", "mnt"):
            (base / name).mkdir(mode=0o755)
        os.chown(base / "source/own", ATTACKER, -1)
        (base / "source/file").write_bytes(b"bytes")
        (base / "source/dir/name").touch()
        under = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
        options = ("--allow-other", "--transport", request.param)
        daemon = Daemon(str(base / "source"), str(base / "mnt"), *options, log=log, under=under)
        ends.callback(daemon.unmount)
        yield daemon


@pytest.mark.parametrize("name", ATTACKS)
def test_another_user_is_answered_during_an_attack(shared: Daemon, name: str) -> None:
    with attack(ATTACKS[name], shared):
        end = time.monotonic() + SECONDS / len(ATTACKS) / 2
        ask(shared)
        while time.monotonic() < end:
            ask(shared)
