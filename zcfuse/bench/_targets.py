"""What is measured: the backing tree itself, zcfuse by chosen paths, and its peers.

Peers are mounted read-only by their own command line with the options that serve reading best and
change nothing about what a reader may rely on: caching as zcfuse has it, one second, keep a file's
pages while size and time are the same.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientProcess, client
from zcfuse.bench._daemons import MountFailedError, RunningMount, running, zcfuse_command

BACKING: Final = "backing"
LEASES: Final = "+leases"
PYTHON: Final = "+python"
_LEASE_OPTIONS: Final = {LEASES: "--directory-lease", PYTHON: "--no-directory-lease"}
PATHS: Final = ("naive", "upcall", "pool", "mmap", "splice", "passthrough")
_MERGERFS_OPTIONS: Final = (
    "ro,use_ino,cache.files=auto-full,cache.entry=1,cache.attr=1,cache.negative_entry=1,"
    "cache.symlinks=true,cache.readdir=true,threads=0"
)
_BINDFS_OPTIONS: Final = (
    "ro,auto_cache,entry_timeout=1,attr_timeout=1,negative_timeout=1,max_readahead=1048576"
)


class Target(msgspec.Struct, frozen=True):
    """A column of the benchmark: what `argv` mounts on `mountpoint`, or the backing tree.

    `missing` says why it is not to be had.
    """

    name: str
    argv: tuple[str, ...] = ()
    mountpoint: str = ""
    missing: str = ""

    @property
    def mounts(self) -> bool:
        """Whether this target is a mount."""
        return bool(self.argv)


class RunningTarget(msgspec.Struct, frozen=True):
    """A target with its client; `root` is where it shows the tree, `mount` is None for backing."""

    target: Target
    root: str
    client: ClientProcess
    mount: RunningMount | None


def zcfuse_target(path: str, source: str, mountpoint: str, options: Sequence[str] = ()) -> Target:
    """The mount of `source` by a serving path.

    LEASES behind it asks for directory leases, which is the default, PYTHON for none.
    """
    bare, plus, way = path.partition("+")
    path_options = ["--path", bare, *([_LEASE_OPTIONS[plus + way]] if plus else [])]
    argv = zcfuse_command(source, mountpoint, [*path_options, *options])
    name = "zcfuse" if path == "auto" else f"zcfuse {path}"
    return Target(name, tuple(argv), mountpoint)


def peer_targets(source: str, base: str) -> list[Target]:
    """The other programs, mounted in directories of `base`; those not installed say so."""
    commands = {
        "mergerfs": ("-f", "-o", _MERGERFS_OPTIONS),
        "bindfs": ("-f", "--multithreaded", "--no-allow-other", "-o", _BINDFS_OPTIONS),
    }
    targets = []
    for name, options in commands.items():
        mountpoint = os.path.join(base, name)
        program = shutil.which(name)
        if program is None:
            targets.append(Target(name, missing=f"not installed ('apt-get install {name}')"))
        else:
            targets.append(Target(name, (program, *options, source, mountpoint), mountpoint))
    return targets


@contextlib.contextmanager
def started(target: Target, source: str) -> Iterator[RunningTarget]:
    """Mount the target if it is a mount, with a client for it, for the length of the block.

    Raises `MountFailedError` where it cannot be mounted.
    """
    if target.missing:
        raise MountFailedError(target.missing)
    with contextlib.ExitStack() as stack:
        mount = None
        if target.mounts:
            os.makedirs(target.mountpoint, exist_ok=True)
            mount = stack.enter_context(running(target.argv, target.mountpoint))
        root = mount.mountpoint if mount is not None else source
        yield RunningTarget(target, root, stack.enter_context(client()), mount)
