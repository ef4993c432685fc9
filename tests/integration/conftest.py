"""Fixtures for real mounts: clients on both sides, and a mount for a module's tests to share."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

pytest.register_assert_rewrite("tests.integration.client", "tests.integration.program")

from tests.integration.client import Client, Pair  # noqa: E402
from tests.integration.counts import eventually  # noqa: E402
from tests.integration.program import Program  # noqa: E402
from tests.support import Daemon, Mounter, requires, skip_unless  # noqa: E402
from tests.support._rings import rings_on  # noqa: E402

COMMAND_DEADLINE_S: Final = 20

# Every serving path, to parametrize with. `auto` without passthrough needs a fault.
NO_PASSTHROUGH: Final = {"ZCFUSE_FAULTS": "backing_open:EPERM"}
CACHED_PATHS: Final = ["pool", "mmap", "splice"]
# A mount over io_uring, to parametrize with.
RING: Final = pytest.param("ring", marks=[requires("root", "io_uring"), pytest.mark.ring])
RING_OPTIONS: Final = ("--path", "pool", "--transport", "uring")
PASSTHROUGH: Final = pytest.param("passthrough", marks=requires("passthrough"))
ALL_PATHS: Final = ["naive", "upcall", *CACHED_PATHS, PASSTHROUGH]

# Longer than the cache timeout, also on a busy machine.
SETTLE_S: Final = 5
_ROOMS: Final = itertools.count()

Shared = tuple[str, Daemon]
Clients = Callable[..., Client]
Pairs = Callable[..., Pair]
Shows = Callable[..., tuple[Program, Client]]


def write(directory: str, name: str, data: bytes = b"") -> str:
    """Make a file that was last changed long ago, and return its path."""
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        file.write(data)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321))
    return path


@pytest.fixture
def where(tmp_path: Path) -> str:
    """A directory of 100 small files, called 0 to 99."""
    directory = tmp_path / "where"
    directory.mkdir()
    for number in range(100):
        (directory / str(number)).write_bytes(b"%d" % number * 10)
    return str(directory)


def command(*argv: str, cwd: str | Path | None = None) -> None:
    """Run a program that must succeed."""
    subprocess.run(argv, check=True, timeout=COMMAND_DEADLINE_S, capture_output=True, cwd=cwd)


@contextlib.contextmanager
def kernel_mount(*argv: str, cwd: str | Path | None = None) -> Iterator[None]:
    """Run ``mount ARGV``, whose last argument is the mount point, and unmount after the context.

    Since util-linux 2.39 an option is limited to 255 bytes (fsconfig(2)), so use paths relative to
    `cwd` in options.
    """
    command("mount", *argv, cwd=cwd)
    try:
        yield
    finally:
        command("umount", "-l", argv[-1])


@contextlib.contextmanager
def serving(
    base: Path,
    source: str,
    *options: str,
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
) -> Iterator[Daemon]:
    """A mount of `source` that a module's tests share; it must end cleanly."""
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    log = str(base / "daemon.log")
    daemon = Daemon(source, str(mountpoint), *options, log=log, env=env, under=under)
    try:
        yield daemon
    finally:
        daemon.unmount()


@contextlib.contextmanager
def pair_of(
    daemon: Daemon, *, uid: int | None = None, reference: str | None = None
) -> Iterator[Pair]:
    """Clients of the mount and of a directory to compare it with; None: its source."""
    with contextlib.ExitStack() as ends:
        native = daemon.source if reference is None else reference
        clients = [Client(daemon.mountpoint, daemon, uid=uid), Client(native, uid=uid)]
        for client in clients:
            ends.callback(client.close)
        yield Pair(*clients)


@pytest.fixture
def clients(mounted: Mounter) -> Iterator[Clients]:
    """Makes clients: ``clients(daemon)`` of a mount, ``clients(root=...)`` of a directory.

    They end before the mounts.
    """
    with contextlib.ExitStack() as ends:

        def make(
            daemon: Daemon | None = None, *, root: str | None = None, uid: int | None = None
        ) -> Client:
            where = root if root is not None else daemon.mountpoint if daemon is not None else "/"
            client = Client(where, daemon, uid=uid)
            ends.callback(client.close)
            return client

        yield make


@contextlib.contextmanager
def shown_side_by_side(
    factory: pytest.TempPathFactory, sources: Sequence[str], code: str = ""
) -> Iterator[list[tuple[Program, Client]]]:
    """Mount the tree of each program, and run `code` in each one's client, to compare them."""
    skip_unless("mounting")
    with contextlib.ExitStack() as ends:
        shown = []
        for source in sources:
            base = factory.mktemp("shown")
            (base / "mnt").mkdir()
            program = Program(source, str(base / "mnt"), str(base / "log"))
            ends.callback(program.end)
            client = Client(program.mountpoint, program)
            ends.callback(client.close)
            client.value(f"exec({code!r}, globals())")
            shown.append((program, client))
        yield shown


@pytest.fixture
def shows(tmp_path: Path, mountpoint: str) -> Iterator[Shows]:
    """Mounts a tree: ``shows(source)`` is the program that shows it and a client of its mount.

    The source sets ``tree``; it can use all names of zcfuse and the keyword arguments.
    """
    skip_unless("mounting")
    with contextlib.ExitStack() as ends:

        def show(
            source: str, *, limit: int | None = None, at: str = mountpoint, **values: object
        ) -> Any:
            given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
            log = str(tmp_path / "program.log")
            program = Program(given + source, at, log, limit=limit)
            ends.callback(program.end)
            client = Client(at, program)
            ends.callback(client.close)
            return program, client

        yield show


@pytest.fixture
def pairs(clients: Clients) -> Pairs:
    """Makes pairs: ``pairs(daemon)`` is a client of the mount and one of its source."""

    def make(daemon: Daemon, *, native: str | None = None, uid: int | None = None) -> Pair:
        return Pair(clients(daemon, uid=uid), clients(root=native or daemon.source, uid=uid))

    return make


@dataclass(frozen=True, slots=True)
class Room:
    """A test's directory below a mount that its module shares, by serving path `path`."""

    path: str
    daemon: Daemon
    source: str
    pair: Pair

    @property
    def same(self) -> Callable[..., Any]:
        """`Pair.same` below the directory."""
        return self.pair.same

    def settle(self, source: str) -> Any:
        """Wait until the mount equals the backing directory, and require it."""
        eventually(lambda: not self.pair.differ(source), SETTLE_S)
        return self.pair.same(source)


def shared_mount(paths: Sequence[object], *options: str) -> Callable[..., Iterator[Shared]]:
    """The fixture `shared` of a module whose tests ask for a `room`: a mount by each path."""

    @pytest.fixture(scope="module", params=paths)
    def shared(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Shared]:
        skip_unless("mounting")
        base = tmp_path_factory.mktemp("shared")
        source = base / "source"
        source.mkdir()
        with serving(base, str(source), "--path", request.param, *options) as daemon:
            yield request.param, daemon

    return shared


@pytest.fixture
def room(shared: Shared) -> Iterator[Room]:
    """A new directory in the module's mount, with a client on both sides."""
    path, daemon = shared
    name = f"room-{next(_ROOMS)}"
    source = os.path.join(daemon.source, name)
    os.mkdir(source)
    with contextlib.ExitStack() as ends:
        mount, native = Client(daemon.path(name), daemon), Client(source)
        ends.callback(native.close)
        ends.callback(mount.close)
        yield Room(path, daemon, source, Pair(mount, native))


@pytest.fixture
def ring_switch() -> Iterator[None]:
    """FUSE over io_uring is switched on during a test, which is marked `ring`."""
    with rings_on():
        yield


@pytest.fixture
def public() -> Iterator[str]:
    """A directory that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="zcfuse-public-") as path:
        os.chmod(path, 0o755)
        for name in ("source", "mnt"):
            os.mkdir(os.path.join(path, name), 0o755)
        yield path


@pytest.fixture
def tmpfs(source: str) -> Iterator[str]:
    """A new filesystem on `source`: no other process changes its counts."""
    skip_unless("root")
    with kernel_mount("-t", "tmpfs", "-o", "size=64m", "zcfuse-tests", source):
        yield source
