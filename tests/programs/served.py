"""A backing tree and a mount of it, for a real program to read both.

A module declares the tree and the paths that serve it::

    served = served_mount(fill)                      # this user's best path
    served = served_mount(fill, FAST)                # each fast path of this machine in turn
    served = served_mount(fill, ["passthrough-uring"], "--cache-timeout", "1000")

and its tests run programs and compare::

    def test_wc_counts_the_same(served, record):
        with served.proof(delivered=served.size("file")) as proof:
            served.same("wc", "-c", "{}/file")
        record("wc", version("wc", "--version"), "the count of bytes", proof)
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.integration.conftest import serving
from tests.programs import frozen
from tests.programs.frozen import KernelMount, KernelProof, frozen_mount, kernel_proof_of
from tests.programs.proof import Proof, proof_of
from tests.support import Daemon, missing, requires, skip_unless
from tests.support._rings import rings_on

PROGRAM_DEADLINE_S: Final = 30.0
# In the arguments of a program: the directory to read, the mount or the backing tree.
ROOT: Final = "{}"

# To parametrize with. "best" is the default for the user.
BEST: Final[Sequence[object]] = ["best"]
PASSTHROUGH: Final = pytest.param("passthrough", marks=requires("passthrough"))
FAST: Final[Sequence[object]] = [PASSTHROUGH, "splice"]
# By the kernel, from an image of the tree.
FROZEN: Final = pytest.param(frozen.PATH, marks=requires("root", "erofs"))
# Passthrough for the bytes, and everything else by FUSE over io_uring.
PASSTHROUGH_URING: Final = pytest.param(
    "passthrough-uring",
    marks=[requires("passthrough", "root", "io_uring"), pytest.mark.ring],
)

Fill = Callable[[str], object]

# Drops the mount's page cache of its files, because cached bytes cause no READ.
_FORGET: Final = """
import os, sys
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and not os.path.islink(path):
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
"""


@dataclass(frozen=True, slots=True)
class Served:
    """`daemon` shows `source` on `mountpoint`, by the serving path `path`."""

    path: str
    daemon: Daemon | KernelMount

    @property
    def source(self) -> str:
        """The backing directory."""
        return self.daemon.source

    @property
    def mountpoint(self) -> str:
        """The mount point. The test process itself must not access it."""
        return self.daemon.mountpoint

    def size(self, *names: str) -> int:
        """The size of a file, or of all files below a directory, in bytes."""
        path = os.path.join(self.source, *names)
        if not os.path.isdir(path):
            return os.path.getsize(path)
        found = [os.path.join(at, name) for at, _, files in os.walk(path) for name in files]
        return sum(os.lstat(one).st_size for one in found)

    def run(
        self,
        *argv: str,
        timeout: float = PROGRAM_DEADLINE_S,
        check: bool = True,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program on the mount; "{}" in its arguments is the mount point.

        Raises:
            AssertionError: it failed, and `check` is true.
            ClientHungError: it did not end in time; the mount is aborted.
        """
        here = [word.replace(ROOT, self.mountpoint) for word in argv]
        return self.daemon.run(*here, timeout=timeout, check=check, stdin=stdin)

    def native(
        self,
        *argv: str,
        timeout: float = PROGRAM_DEADLINE_S,
        check: bool = True,
        stdin: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it on the backing tree, as the same user."""
        here = [word.replace(ROOT, self.source) for word in argv]
        user = self.daemon.user
        return subprocess.run(
            here if user is None else user.command(here),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=check,
        )

    def same(self, *argv: str, timeout: float = PROGRAM_DEADLINE_S, stdin: bytes = b"") -> bytes:
        """Run it on both, require success and equal output, and return the output."""
        expected = self.native(*argv, timeout=timeout, stdin=stdin)
        found = self.run(*argv, timeout=timeout, stdin=stdin)
        assert found.stdout == expected.stdout, argv
        return found.stdout

    def forget(self) -> None:
        """Drop the mount's page cache of its files, so that reads ask the daemon."""
        self.daemon.python(_FORGET, self.mountpoint)

    @contextlib.contextmanager
    def proof(self, *, delivered: int = 0, advised: bool = False) -> Iterator[Proof | KernelProof]:
        """Require that only the serving path served the programs in the block.

        Args:
            delivered: a lower bound of the bytes that the programs get from the mount; the block
                may also set it.
            advised: the programs ask for readahead (see `Proof`).
        """
        self.forget()
        if isinstance(self.daemon, KernelMount):
            with kernel_proof_of(self.daemon, delivered) as served:
                yield served
            return
        with proof_of(self.daemon, self.path, delivered=delivered, advised=advised) as proof:
            yield proof


def served_mount(
    fill: Fill, paths: Sequence[object] = BEST, *options: str
) -> Callable[..., Iterator[Served]]:
    """The fixture `served` of a module: the tree of `fill(directory)`, mounted by each of `paths`.

    All share one backing tree, which tests leave unchanged.
    """
    sources: list[str] = []

    @pytest.fixture(scope="module", params=paths)
    def served(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Served]:
        skip_unless("mounting")
        if not sources:
            source = str(tmp_path_factory.mktemp("source"))
            fill(source)
            sources.append(source)
        base = tmp_path_factory.mktemp("programs")
        with mounted_by(base, sources[0], request.param, *options) as made:
            yield made

    return served


@contextlib.contextmanager
def mounted_by(base: Path, source: str, how: str, *options: str) -> Iterator[Served]:
    """Mount `source` below `base` by one of the ways to parametrize with."""
    how = best() if how == "best" else how
    if how == frozen.PATH:
        with frozen_mount(base, source) as mount:
            yield Served(how, mount)
        return
    path, _, transport = how.partition("-")
    chosen = ["--path", path, "--transport", transport or "dev", *options]
    with contextlib.ExitStack() as ends:
        with rings_on() if transport == "uring" else contextlib.nullcontext():
            daemon = ends.enter_context(serving(base, source, *chosen))
        yield Served(path, daemon)


def best() -> str:
    """The best serving path that this user has on this machine."""
    return "splice" if missing("passthrough") else "passthrough"
