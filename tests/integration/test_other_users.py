"""One user attacks, and another one's requests still end: docs/semantics.md, "Other users".

`make hostile` repeats each attack for minutes; a single pass belongs to the ordinary tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
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

from tests.integration import attacks
from tests.integration.attacks import ATTACKER, attack
from tests.integration.conftest import command, kernel_mount
from tests.integration.program import Program
from tests.support import Daemon, eventually, requires, skip_unless
from tests.support._rings import rings_on
from tests.support._user import CHECKOUT

pytestmark = [requires("root", "fuse"), pytest.mark.alone]

SECONDS: Final = float(os.environ.get("ZCFUSE_HOSTILE_SECONDS", "0"))
BOUND_S: Final = 10
OTHER: Final = 65533
DESCRIPTORS: Final = 256
NAMES: Final = 20_000  # of a directory that takes long to list
WIDE: Final = 3000  # more than a serving thread reads
REFUSAL_S: Final = 60
FIFREEZE: Final = 0xC0045877  # linux/fs.h
FITHAW: Final = 0xC0045878
LAYERS: Final = 60

# Each lookup in `slow`, listing of a `wide` directory and read of `fetched` waits, as for another
# machine, and ends with the attack at the latest. Reads of `silent` and lookups in `still` end
# only then.
PROGRAM: Final = """
async def fetch(offset, size, seconds=3):
    for _ in range(10 * seconds):
        if not os.path.exists({over!r}):
            await trio.sleep(0.1)
    return bytes(size)

async def wait(offset, size):
    while not os.path.exists({over!r}):
        await trio.sleep(0.1)
    return bytes(size)

class Slow(Dir):
    async def lookup(self, name, who):
        await fetch(0, 0)

    async def list(self, who):
        return []

class Still(Slow):
    async def lookup(self, name, who):
        await wait(0, 0)

class Wide(Dir):
    async def lookup(self, name, who):
        return None if name.startswith(".wh.") else Bytes(b"")

    async def list(self, who):
        await fetch(0, 0, 2)
        return [f"{{n:0100}}" for n in range({wide})]

tree = Dir({{
    **{{f"wide{{n}}": Wide() for n in range(12)}},
    "still": Still(),
    "file": Bytes(b"bytes"),
    "dir": Dir({{"name": Bytes(b"")}}),
    "slow": Slow(),
    "fetched": Computed(1 << 38, fetch),
    "silent": Computed(1 << 38, wait),
}})
options = MountOptions(transport={transport!r}, allow_other=True)
"""


# A disk's image. From `hang` on, reads end with the attack.
DISK: Final = """
async def read(offset, size):
    while os.path.exists({hang!r}) and not os.path.exists({over!r}):
        await trio.sleep(0.1)
    with open({image!r}, "rb") as file:
        return os.pread(file.fileno(), size, offset)

tree = Dir({{"image": Computed(os.path.getsize({image!r}), read)}})
options = MountOptions(transport="dev")
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


def ask(target: Target) -> list[float]:
    """Do as another user and as root do; each command ends within the bound, with an answer.

    Returns the time of each command in seconds.
    """
    taken = []
    for user in (OTHER, 0):
        for argv in (
            ["stat", target.path("file")],
            ["stat", "-f", target.mountpoint],
            ["cat", target.path("file")],
            ["dd", f"if={target.path('file')}", "iflag=direct"],  # sends a READ each time
            ["ls", target.path("dir")],
        ):
            began = time.monotonic()
            subprocess.run(
                argv, check=True, capture_output=True, timeout=BOUND_S, cwd="/", user=user
            )
            taken.append(time.monotonic() - began)
    assert target.status()["mountpoint"] == target.mountpoint
    return taken


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
        os.mknod(base / "below/own" / f"{number:0100}")
    layers = ("--layer", str(base / "source"), "--layer", str(base / "below"))
    options = ("--allow-other", "--transport", transport)
    daemon = Daemon("", str(base / "mnt"), *layers, *options, log=log)
    return str(base / "source"), daemon.unmount


def many_layers(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mount many layers of one directory; the daemon has few descriptors."""
    layers = ["--layer", str(base / "source")]
    for number in range(LAYERS):
        (base / f"layer{number}/dir").mkdir(parents=True)
        (base / f"layer{number}/dir/{number}").touch()
        layers += ["--layer", str(base / f"layer{number}")]
    under = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    options = ("--allow-other", "--transport", transport)
    daemon = Daemon("", str(base / "mnt"), *layers, *options, log=log, under=under)
    return str(base / "source"), daemon.unmount


def programmed(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mount a program's tree of which some answers take long."""
    program = Program(program_text(base, transport), str(base / "mnt"), log)
    return str(base / "source"), program.end


def program_text(base: Path, transport: str) -> str:
    """Return the program over a transport."""
    over = str(base / "source/own/over")
    return PROGRAM.format(transport=transport, over=over, wide=WIDE)


def on_a_slow_disk(
    base: Path, transport: str, log: str, path: str = "pool", layers: bool = False
) -> tuple[str, Callable[[], None]]:
    """Mirror a filesystem that takes long for some files and directories, or merge it with another.

    The disk is a FUSE filesystem. Without passthrough, reads keep the daemon waiting for it.
    """
    (base / "disk").mkdir()
    disk = Program(program_text(base, "dev"), str(base / "disk"), log + " of the disk")
    options = ["--allow-other", "--path", path, "--transport", transport]
    source = str(base / "disk")
    if layers:
        for number in range(12):  # names of one layer alone are not collected
            (base / f"source/wide{number}").mkdir()
        options += ["--layer", source, "--layer", str(base / "source")]
        source = ""
    try:
        daemon = Daemon(source, str(base / "mnt"), *options, log=log)
    except BaseException:
        disk.end()
        raise

    def end() -> None:
        try:
            daemon.unmount()
        finally:
            disk.end()

    return str(base / "source"), end


def on_a_disk_of_its_own(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mirror a disk for clients that change it; without passthrough each WRITE is a request."""
    image, disk = base / "image", base / "own-disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    command("mkfs.ext4", "-q", str(image))
    with contextlib.ExitStack() as ends:
        ends.enter_context(kernel_mount("-o", "loop", str(image), str(disk)))
        command("cp", "-a", f"{base}/source/.", str(disk))
        options = ("--allow-other", "--path", "pool", "--transport", transport, "-o", "rw")
        daemon = Daemon(str(disk), str(base / "mnt"), *options, log=log)
        ends.callback(daemon.unmount)
        return str(disk), ends.pop_all().close


def slow_to_sync(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mirror a directory whose files take long to reach the disk, and nothing else does."""
    options = ("--allow-other", "--path", "pool", "--transport", transport, "-o", "rw")
    faults = {"ZCFUSE_FAULTS": "fsync:slow"}
    daemon = Daemon(str(base / "source"), str(base / "mnt"), *options, log=log, env=faults)
    return str(base / "source"), daemon.unmount


def on_a_disk_that_hangs(base: Path, transport: str, log: str) -> tuple[str, Callable[[], None]]:
    """Mirror a disk of which the kernel has all in memory that the other users need, and no more.

    Small groups of blocks and no reading ahead: the others' directories lie elsewhere.
    """
    skip_unless("loop")
    image, files, disk = base / "image", base / "files", base / "disk"
    for directory in (files, disk):
        directory.mkdir()
    command("cp", "-a", f"{base}/source/.", str(files))
    for number in range(60):
        (files / f"cold{number}").mkdir()
    make = ("-b", "1024", "-O", "^flex_bg", "-d", str(files), str(image), "160M")
    command("mkfs.ext4", "-q", *make)
    own = base / "source/own"
    text = DISK.format(hang=str(own / "hang"), over=str(own / "over"), image=str(image))
    with contextlib.ExitStack() as ends:
        program = Program(text, str(disk), log + " of the disk")
        ends.callback(program.end)
        options = "loop,ro,noload,inode_readahead_blks=1"
        ends.enter_context(kernel_mount("-o", options, str(disk / "image"), str(files)))
        arguments = ("--allow-other", "--path", "pool", "--transport", transport)
        daemon = Daemon(str(files), str(base / "mnt"), *arguments, log=log)
        ends.callback(daemon.unmount)
        target = Target(str(base / "source"), str(base / "mnt"))
        ask(target)
        return target.source, ends.pop_all().close


@contextlib.contextmanager
def frozen(directory: str) -> Iterator[None]:
    """Hold up each change of a filesystem."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(fd, FITHAW, 0)
    finally:
        os.close(fd)


MAKERS: Final = {
    "mirror": mirrored,
    "union": merged,
    "layers": many_layers,
    "program": programmed,
    "slow disk": on_a_slow_disk,
    "silent disk": on_a_slow_disk,
    "spliced disk": functools.partial(on_a_slow_disk, path="splice"),
    "mapped disk": functools.partial(on_a_slow_disk, path="mmap"),
    "slow layers": functools.partial(on_a_slow_disk, layers=True),
    "disk of its own": on_a_disk_of_its_own,
    "slow to sync": slow_to_sync,
    "disk that hangs": on_a_disk_that_hangs,
}
TRANSPORTS: Final = ("dev", "uring")
# By name: what is mounted, the program, and the transport that it threatens more. `make hostile`
# runs each over both.
ATTACKS: Final = {
    "leases": ("mirror", attacks.LEASES, "uring"),
    "open directories": ("mirror", attacks.DIRECTORIES, "dev"),
    "open files": ("mirror", attacks.FILES, "dev"),
    "open files of many layers": ("layers", attacks.FILES, "dev"),
    "merged listings": ("union", attacks.LISTINGS, "dev"),
    "slow policy": ("program", attacks.POLICY, "dev"),
    "slow reads": ("program", attacks.READS, "uring"),
    "slow disk": ("slow disk", attacks.READS, "uring"),
    "slow lookups of a disk": ("slow disk", attacks.POLICY, "uring"),
    "silent lookups of a disk": ("silent disk", attacks.LOOKUPS, "dev"),
    "slow listings of a layer": ("slow layers", attacks.WIDE_LISTINGS, "uring"),
    "silent disk": ("silent disk", attacks.SILENCE, "dev"),
    "silent disk, spliced": ("spliced disk", attacks.SILENCE, "dev"),
    "silent disk, mapped": ("mapped disk", attacks.SILENCE, "dev"),
    "slow syncs": ("slow to sync", attacks.SYNCS, "uring"),
    "disk that hangs": ("disk that hangs", attacks.COLD, "both"),
}


Targets = Callable[[str, str], Target]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    """Make a target of a kind over a transport, one of each."""
    made: dict[tuple[str, str], Target] = {}
    with contextlib.ExitStack() as ends:

        def make(kind: str, transport: str) -> Target:
            name = f"zcfuse-hostile-{os.getpid()}-{transport}-{kind.replace(' ', '-')}"
            base = Path("/tmp") / name
            ends.callback(subprocess.run, ["rm", "-r", str(base)], check=False)
            for directory in ("", "source", "source/dir", "source/own", "mnt"):
                (base / directory).mkdir(mode=0o755)
            os.chown(base / "source/own", ATTACKER, -1)
            (base / "source/file").write_bytes(b"bytes")
            (base / "source/dir/name").touch()
            log = str(tmp_path_factory.mktemp("hostile") / "log")
            source, end = MAKERS[kind](base, transport, log)
            ends.callback(end)
            return Target(source, str(base / "mnt"))

        def target(kind: str, transport: str) -> Target:
            if transport == "uring":
                skip_unless("io_uring")
            with rings_on() if transport == "uring" else contextlib.nullcontext():
                if (kind, transport) not in made:
                    made[kind, transport] = make(kind, transport)
            assert is_over_rings(made[kind, transport]) == (transport == "uring")
            return made[kind, transport]

        yield target


def refused(target: Target, reason: str) -> int:
    """Return how often the reason occurred."""
    return int(target.status()["datapath"]["fallbacks"].get(reason, 0))


def is_over_rings(target: Target) -> bool:
    """Whether requests hold entries of rings."""
    return bool(target.status()["datapath"]["transport"]["kind"] == "uring")


def check_listings_are_refused(target: Target) -> None:
    """Beyond what a user may hold of a ring; those over /dev/fuse hold no entry."""
    if is_over_rings(target):
        assert eventually(lambda: refused(target, "listing_refused"), REFUSAL_S)
    else:
        assert not refused(target, "listing_refused")


def check_reads_are_refused(target: Target) -> None:
    """The same of READs."""
    if is_over_rings(target):
        assert eventually(lambda: refused(target, "read_refused"), REFUSAL_S)
    else:
        assert not refused(target, "read_refused")


def check_half_read_listings_take_bounded_memory(target: Target) -> None:
    found = target.status()["datapath"]["directories"]
    directory = NAMES * 200  # bytes, more than a name takes
    assert 0 < found["snapshot_bytes"] <= (64 << 20) + 2 * directory
    assert found["listings_waited"] > 0


def check_files_are_refused(target: Target) -> None:
    fallbacks = target.status()["datapath"]["fallbacks"]
    assert {"files_refused", "reserve_refused"} & set(fallbacks)


def check_upcalls_wait_or_are_refused(target: Target) -> None:
    fallbacks = target.status()["datapath"]["fallbacks"]
    assert {"upcall_waited", "upcall_refused"} & set(fallbacks)


def check_calls_are_made_elsewhere(target: Target) -> None:
    assert refused(target, "call_elsewhere") > 0


# These look at what is counted while others are answered.
CHECKS: Final = {
    "slow listings of a layer": check_listings_are_refused,
    "slow disk": check_reads_are_refused,
    "merged listings": check_half_read_listings_take_bounded_memory,
    "open files": check_files_are_refused,
    "slow policy": check_upcalls_wait_or_are_refused,
    "slow syncs": check_calls_are_made_elsewhere,
    "disk that hangs": check_calls_are_made_elsewhere,
}


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        (name, transport)
        for name, (_, _, over) in ATTACKS.items()
        for transport in TRANSPORTS
        if SECONDS or over in (transport, "both")
    ],
)
def test_another_user_is_answered_during_an_attack_whose_bounds_are_counted(
    targets: Targets, name: str, transport: str
) -> None:
    kind, code, _ = ATTACKS[name]
    target = targets(kind, transport)
    with attack(code, target.source, target.mountpoint):
        end = time.monotonic() + SECONDS / len(ATTACKS) / 2
        taken = ask(target)
        while time.monotonic() < end:
            taken += ask(target)
        if name in CHECKS:
            CHECKS[name](target)
    print(
        f"{name}, {transport}: {len(taken)} commands of others, the longest took {max(taken):.2f} s"
    )


@requires("loop")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_another_user_is_answered_while_changes_of_the_disk_are_held_up(
    targets: Targets, transport: str
) -> None:
    target = targets("disk of its own", transport)
    with attack(attacks.CHANGES, target.source, target.mountpoint), frozen(target.source):
        ask(target)
        fallbacks = target.status()["datapath"]["fallbacks"]
        assert fallbacks["call_elsewhere"] > 0
        if is_over_rings(target):
            assert eventually(lambda: refused(target, "call_refused"))
        else:
            assert not refused(target, "call_refused")  # requests over /dev/fuse hold no entry


@requires("loop")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rename_that_the_disk_holds_up_delays_other_renames_alone_and_not_for_long(
    targets: Targets, transport: str
) -> None:
    target = targets("disk of its own", transport)
    with attack(attacks.MOVES, target.source, target.mountpoint), frozen(target.source):
        assert eventually(lambda: refused(target, "rename_refused"), REFUSAL_S)
        ask(target)
