"""One user attacks, and another one's requests still end: docs/semantics.md, "Other users".

`make hostile` repeats each attack for minutes; a single pass belongs to the ordinary tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.conftest import rings_on
from tests.integration.program import Program
from tests.support import Daemon, eventually, requires, skip_unless
from tests.support._user import CHECKOUT

pytestmark = [requires("root", "fuse"), pytest.mark.alone]

SECONDS: Final = float(os.environ.get("ZCFUSE_HOSTILE_SECONDS", "0"))
BOUND_S: Final = 10
ATTACKER: Final = 65534
OTHER: Final = 65533
DESCRIPTORS: Final = 256
NAMES: Final = 20_000  # of a directory that takes long to list

# Each says "ready" when it stands, and stays until its standard input ends.
LEASES: Final = """
signal.signal(signal.SIGIO, signal.SIG_IGN)
names = [f"leased{n}" for n in range(24 * os.cpu_count())]
held = [os.open(os.path.join(source, "own", name), os.O_RDWR | os.O_CREAT) for name in names]
for fd in held:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
def attack(name):
    os.close(os.open(os.path.join(mount, "own", name), os.O_RDONLY))
for name in names:
    begin(attack, name)
"""
DIRECTORIES: Final = """
held = [os.open(mount, os.O_RDONLY | os.O_DIRECTORY) for _ in range(800)]
"""
FILES: Final = """
held = []
for number in range(400):
    os.close(os.open(os.path.join(source, "own", f"{number}"), os.O_RDWR | os.O_CREAT))
for number in range(400):
    try:
        held.append(os.open(os.path.join(mount, "own", f"{number}"), os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE, error
"""
# Each listing is of another version of the directory, so that none can be shared.
LISTINGS: Final = """
own = os.path.join(source, "own")
held = []
def half_read():
    os.utime(own)
    fd = os.open(os.path.join(mount, "own"), os.O_RDONLY | os.O_DIRECTORY)
    held.append(fd)
    with os.scandir(fd) as entries:
        next(entries)
def attack(_):
    half_read()
    os.close(held.pop())
for _ in range(40):
    with contextlib.suppress(OSError):
        half_read()
for number in range(3):
    begin(attack, number)
"""
POLICY: Final = """
held = []
def attack(name):
    os.stat(os.path.join(mount, "slow", name))
for number in range(300):
    begin(attack, f"{number}")
"""
READS: Final = """
held = [os.open(os.path.join(mount, "fetched"), os.O_RDONLY)]
def attack(_):
    os.pread(held[0], 1, int.from_bytes(os.urandom(2)) << 22)
for number in range(300):
    begin(attack, number)
"""
# The interpreter may lie where only root reaches it.
BEGIN: Final = f"""
import contextlib, errno, fcntl, os, resource, signal, sys, threading
source, mount = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
os.setgroups([])
os.setgid({ATTACKER})
os.setuid({ATTACKER})
def begin(attack, what):
    def again():
        while True:
            with contextlib.suppress(OSError):
                attack(what)
            threading.Event().wait(0.01)
    threading.Thread(target=again, daemon=True).start()
"""
STAY: Final = (
    "\nprint('ready', flush=True)\nsys.stdin.read()\n[os.close(fd) for fd in held]\nos._exit(0)\n"
)

# Each lookup in `slow` and each read of `fetched` waits, as for another machine.
PROGRAM: Final = """
async def fetch(offset, size):
    await trio.sleep(3)
    return bytes(size)

class Slow(Dir):
    async def lookup(self, name, who):
        await fetch(0, 0)

    async def list(self, who):
        return []

tree = Dir({{
    "file": Bytes(b"bytes"),
    "dir": Dir({{"name": Bytes(b"")}}),
    "slow": Slow(),
    "fetched": Computed(1 << 38, fetch),
}})
options = MountOptions(transport={transport!r}, allow_other=True)
"""


@dataclass(frozen=True)
class Target:
    """A mount for all users, and a directory of the attacker behind it."""

    source: str
    mountpoint: str

    def path(self, name: str) -> str:
        """Return the path of a file in the mount."""
        return os.path.join(self.mountpoint, name)

    def status(self) -> Any:
        """Return the status document."""
        argv = [sys.executable, "-m", "zcfuse", "status", "--json", self.mountpoint]
        found = subprocess.run(argv, check=True, capture_output=True, timeout=BOUND_S, cwd=CHECKOUT)
        return json.loads(found.stdout)


@contextlib.contextmanager
def attack(code: str, target: Target) -> Iterator[None]:
    """Run an attack of another user until the block ends."""
    argv = [sys.executable, "-c", BEGIN + code + STAY]
    with subprocess.Popen(
        [*argv, target.source, target.mountpoint],
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
            process.wait(2 * BOUND_S)


def ask(target: Target) -> None:
    """Do as another user and as root do; each command ends within the bound, with an answer."""
    for user in (OTHER, 0):
        for argv in (
            ["stat", target.path("file")],
            ["stat", "-f", target.mountpoint],
            ["cat", target.path("file")],
            ["ls", target.path("dir")],
        ):
            subprocess.run(
                argv, check=True, capture_output=True, timeout=BOUND_S, cwd="/", user=user
            )
    assert target.status()["mountpoint"] == target.mountpoint


def mirrored(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mount a directory; the daemon has few descriptors."""
    under = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    options = ("--allow-other", "--transport", transport)
    daemon = Daemon(str(base / "source"), str(base / "mnt"), *options, log=log, under=under)
    return str(base / "source"), daemon.unmount


def merged(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mount two layers with a large directory."""
    (base / "below/own").mkdir(parents=True)
    for number in range(NAMES):
        (base / "below/own" / f"{number:0100}").touch()
    layers = ("--layer", str(base / "source"), "--layer", str(base / "below"))
    options = ("--allow-other", "--transport", transport)
    daemon = Daemon("", str(base / "mnt"), *layers, *options, log=log)
    return str(base / "source"), daemon.unmount


def programmed(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mount a program's tree of which some answers take long."""
    program = Program(PROGRAM.format(transport=transport), str(base / "mnt"), log)
    return str(base / "source"), program.end


def on_a_slow_disk(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mirror a filesystem that takes long to read a file, and nothing else.

    The disk is a FUSE filesystem. Pool reads keep the daemon waiting for it.
    """
    (base / "disk").mkdir()
    disk = Program(PROGRAM.format(transport="dev"), str(base / "disk"), log + " of the disk")
    options = ("--allow-other", "--path", "pool", "--transport", transport)
    try:
        daemon = Daemon(str(base / "disk"), str(base / "mnt"), *options, log=log)
    except BaseException:
        disk.end()
        raise

    def end() -> None:
        try:
            daemon.unmount()
        finally:
            disk.end()

    return str(base / "source"), end


MAKERS: Final = {
    "mirror": mirrored,
    "union": merged,
    "program": programmed,
    "slow disk": on_a_slow_disk,
}
ATTACKS: Final = {
    "leases": ("mirror", LEASES),
    "open directories": ("mirror", DIRECTORIES),
    "open files": ("mirror", FILES),
    "merged listings": ("union", LISTINGS),
    "slow policy": ("program", POLICY),
    "slow reads": ("program", READS),
    "slow disk": ("slow disk", READS),
}


@pytest.fixture(scope="module", params=["dev", "uring"])
def targets(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Target]]:
    """Make a target over each transport, one of each kind."""
    made: dict[str, Target] = {}
    with contextlib.ExitStack() as ends:
        if request.param == "uring":
            skip_unless("io_uring")
            ends.enter_context(rings_on())

        def target(kind: str) -> Target:
            if kind not in made:
                base = (
                    Path("/tmp")
                    / f"zcfuse-hostile-{os.getpid()}-{request.param}-{kind.replace(' ', '-')}"
                )
                ends.callback(subprocess.run, ["rm", "-r", str(base)], check=False)
                for name in ("", "source", "source/dir", "source/own", "mnt"):
                    (base / name).mkdir(mode=0o755)
                os.chown(base / "source/own", ATTACKER, -1)
                (base / "source/file").write_bytes(b"bytes")
                (base / "source/dir/name").touch()
                log = str(tmp_path_factory.mktemp("hostile") / "log")
                source, end = MAKERS[kind](base, request.param, log)
                ends.callback(end)
                made[kind] = Target(source, str(base / "mnt"))
            return made[kind]

        yield target


@pytest.mark.parametrize("name", ATTACKS)
def test_another_user_is_answered_during_an_attack(
    targets: Callable[[str], Target], name: str
) -> None:
    kind, code = ATTACKS[name]
    target = targets(kind)
    with attack(code, target):
        end = time.monotonic() + SECONDS / len(ATTACKS) / 2
        ask(target)
        while time.monotonic() < end:
            ask(target)


def test_half_read_listings_of_a_user_take_bounded_memory(
    targets: Callable[[str], Target],
) -> None:
    target = targets("union")
    with attack(LISTINGS, target):
        found = target.status()["datapath"]["directories"]
    directory = NAMES * 200  # bytes, more than a name takes
    assert 0 < found["snapshot_bytes"] <= (64 << 20) + 2 * directory
    assert found["listings_waited"] > 0


def test_who_has_too_many_files_open_is_refused_and_counted(
    targets: Callable[[str], Target],
) -> None:
    target = targets("mirror")
    with attack(FILES, target):
        fallbacks = target.status()["datapath"]["fallbacks"]
    assert {"files_refused", "reserve_refused"} & set(fallbacks)


def test_requests_beyond_the_share_of_a_user_wait_and_are_counted(
    targets: Callable[[str], Target],
) -> None:
    target = targets("program")
    with attack(POLICY, target):
        ask(target)
        fallbacks = target.status()["datapath"]["fallbacks"]
    assert {"upcall_waited", "upcall_refused"} & set(fallbacks)


def test_reads_beyond_what_a_user_may_hold_of_a_ring_are_refused_and_counted(
    targets: Callable[[str], Target],
) -> None:
    target = targets("slow disk")

    def refused() -> int:
        return int(target.status()["datapath"]["fallbacks"].get("read_refused", 0))

    with attack(READS, target):
        if target.status()["datapath"]["transport"]["kind"] == "uring":
            assert eventually(refused)
        else:
            ask(target)
            assert not refused()  # requests over /dev/fuse hold no entry
