"""The targets to measure: the backing tree, zcfuse by chosen paths, and its peers.

Peers are mounted from their command lines, with the fastest options for reading that keep the same
guarantees: zcfuse's cache timeout of one second, and pages kept while size and time match.
"""

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from zcfuse.bench._clients import CLIENT_MODULE, ClientProcess, client
from zcfuse.bench._daemons import MountFailedError, RunningMount, running, traced, zcfuse_command

BACKING: Final = "backing"
# The variants of a serving path, and the option of `zcfuse mount` for each.
VARIANTS: Final[Mapping[str, str]] = {
    "python": "--no-directory-lease",
    "immutable": "--immutable",
    "push": "--coherence=push",
    "dev": "--transport=dev",
    "uring": "--transport=uring",
}
PATHS: Final = ("naive", "upcall", "pool", "mmap", "splice", "passthrough")
# By default mergerfs makes no file where less than 4 GB are free.
_MERGERFS_OPTIONS: Final = (
    "minfreespace=0,use_ino,cache.files=auto-full,cache.entry=1,cache.attr=1,cache.negative_entry=1,"
    "cache.symlinks=true,cache.readdir=true,threads=0"
)
_RATARMOUNT: Final = "ratarmount"
_RATARMOUNT_OPTIONS: Final = "auto_cache,entry_timeout=1,attr_timeout=1,negative_timeout=1"
_EXAMPLE: Final = "passthrough_hp"
_RING_PARAMETER: Final = "/sys/module/fuse/parameters/enable_uring"
_BINDFS_OPTIONS: Final = (
    "auto_cache,entry_timeout=1,attr_timeout=1,negative_timeout=1,max_readahead=1048576"
)


class Target(msgspec.Struct, frozen=True):
    """A column of the benchmark: the mount of `argv` on `mountpoint`, or the backing tree.

    `missing` says why it is unavailable. A `traced` mount has a tracer during the measurement.
    """

    name: str
    argv: tuple[str, ...] = ()
    mountpoint: str = ""
    missing: str = ""
    traced: bool = False

    @property
    def mounts(self) -> bool:
        """Whether this target is a mount."""
        return bool(self.argv)


class RunningTarget(msgspec.Struct, frozen=True):
    """A target with its client; `root` holds the tree, `mount` is None for backing."""

    target: Target
    root: str
    client: ClientProcess
    mount: RunningMount | None


def split_path(path: str) -> tuple[str, list[str]]:
    """A serving path with its VARIANTS, as in ``auto+immutable+dev``."""
    bare, *variants = path.split("+")
    return bare, variants


def zcfuse_target(
    path: str,
    source: str | None,
    mountpoint: str,
    options: Sequence[str] = (),
    kind: str = "",
) -> Target:
    """The mount of `source`, or of the tree in `options`, by a serving path with its VARIANTS.

    `kind` names the tree in the name of the column.
    """
    bare, variants = split_path(path)
    path_options = ["--path", bare, *(VARIANTS[variant] for variant in variants)]
    argv = zcfuse_command(source, mountpoint, [*path_options, *options])
    name = " ".join(["zcfuse", *([kind] if kind else []), *([path] if path != "auto" else [])])
    return Target(name, tuple(argv), mountpoint)


def peer_targets(source: str, base: str, *, writable: bool = False) -> list[Target]:
    """The other programs, mounted in directories of `base`; a missing program reports that.

    libfuse's example passthrough_hp takes part if it is in the PATH, and also over a ring if both
    the program and the kernel support that. Distributions do not package it.
    """
    mode = "rw" if writable else "ro"
    bindfs = ("bindfs", "-f", "--multithreaded", "--no-allow-other")
    commands = {
        "mergerfs": ("mergerfs", "-f", "-o", f"{mode},{_MERGERFS_OPTIONS}"),
        "bindfs": (*bindfs, "-o", f"{mode},{_BINDFS_OPTIONS}"),
    }
    if shutil.which(_EXAMPLE):
        commands[_EXAMPLE] = (_EXAMPLE, "--foreground", "--clone-fd")
        if _has_rings(_EXAMPLE):
            commands[f"{_EXAMPLE} io_uring"] = (*commands[_EXAMPLE], "-o", "io_uring")
    targets = []
    for name, (program, *options) in commands.items():
        mountpoint = os.path.join(base, name)
        path = shutil.which(program)
        if path is None:
            targets.append(Target(name, missing=f"not installed ('apt-get install {program}')"))
        else:
            targets.append(Target(name, (path, *options, source, mountpoint), mountpoint))
    return targets


def tar_targets(archive: str, base: str) -> list[Target]:
    """The archive, and its copy in gzip, mounted by zcfuse and by ratarmount below `base`.

    Both index an archive first; the measurement begins after that.
    """
    targets = []
    for ending in ("", ".gz"):
        path, what = archive + ending, f"tar{ending}"
        own, theirs = os.path.join(base, what), os.path.join(base, f"{_RATARMOUNT}{ending}")
        program = shutil.which(_RATARMOUNT)
        if not os.path.exists(path):
            targets.append(Target(f"zcfuse {what}", missing="not installed ('apt install gzip')"))
        elif ending and importlib.util.find_spec("rapidgzip") is None:
            missing = "not installed (\"pip install 'zcfuse[compressed]'\")"
            targets.append(Target(f"zcfuse {what}", missing=missing))
        else:
            argv = zcfuse_command(path, own, ["--keep-index", "no"])
            targets.append(Target(f"zcfuse {what}", tuple(argv), own))
        name = f"{_RATARMOUNT} {ending}".strip()
        if program is None:
            missing = f"not installed ('pip install {_RATARMOUNT}')"
            targets.append(Target(name, missing=missing))
        elif os.path.exists(path):
            index = ["--index-file", f"{path}.index", path, theirs]
            argv = [program, "-f", "-o", _RATARMOUNT_OPTIONS, *index]
            targets.append(Target(name, tuple(argv), theirs))
    return targets


def _has_rings(program: str) -> bool:
    """Whether a libfuse program supports rings and the kernel has them on."""
    try:
        with open(_RING_PARAMETER, encoding="ascii") as file:
            switched_on = file.read().strip() in {"Y", "1"}
    except OSError:
        return False
    said = subprocess.run([program, "--help"], capture_output=True, timeout=10, check=False)
    return switched_on and b"io_uring" in said.stdout + said.stderr


@contextlib.contextmanager
def started(
    target: Target, source: str, client_module: str = CLIENT_MODULE
) -> Iterator[RunningTarget]:
    """Mount the target if it is a mount, with a client for it, during the block.

    Raises `MountFailedError` if it does not mount.
    """
    if target.missing:
        raise MountFailedError(target.missing)
    with contextlib.ExitStack() as stack:
        mount = None
        if target.mounts:
            os.makedirs(target.mountpoint, exist_ok=True)
            mount = stack.enter_context(running(target.argv, target.mountpoint))
            if target.traced:
                stack.enter_context(traced(mount.mountpoint))
        root = mount.mountpoint if mount is not None else source
        yield RunningTarget(target, root, stack.enter_context(client(client_module)), mount)
