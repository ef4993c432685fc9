"""A union to measure: the files of a tree spread over layers, and the programs that merge them.

The layers resemble image layers: each adds files, and the upper ones hide older versions and remove
names by whiteouts. Merged, they show exactly the measured files of the tree.
"""

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse.bench._sources import SourceError, SourceTree, directory_outside
from zcfuse.bench._targets import Target, zcfuse_target

LAYERS: Final = 3
"""How many layers a union has unless more are asked for."""

_HIDDEN_EVERY: Final = 10  # one file in ten has an older version below, and a removed neighbour
_FREE_SHARE: Final = 2
_BLOCK: Final = 1 << 20
_OVERLAYFS: Final = "overlayfs"
_FUSE_OVERLAYFS: Final = "fuse-overlayfs"
# The same timeout as the others; its default is unlimited.
_FUSE_OVERLAYFS_OPTIONS: Final = "timeout=1"


@contextlib.contextmanager
def layers_of(tree: SourceTree, count: int = LAYERS) -> Iterator[tuple[str, ...]]:
    """Create `count` directories, the topmost first, with the measured files of `tree`.

    They lie outside the tree, and the end of the block removes them. Raises `SourceError` without
    enough space.
    """
    with directory_outside(tree.root) as base:
        _require_space(tree, base)
        layers = tuple(os.path.join(base, f"{number}") for number in range(count))
        for layer in layers:
            os.mkdir(layer)
        if tree.large:
            _copy(tree, tree.large, layers[-1])
        for index, name in enumerate(tree.small):
            _copy(tree, name, layers[index % len(layers)])
            if index % _HIDDEN_EVERY == 0:
                _hide(layers, name, index)
        os.sync()
        yield layers


def union_targets(layers: Sequence[str], paths: Sequence[str], base: str) -> list[Target]:
    """The layers merged by zcfuse, by each of the paths, below `base`."""
    options = [f"--layer={layer}" for layer in layers]
    return [zcfuse_target(path, None, os.path.join(base, path), options) for path in paths]


def union_peer_targets(
    layers: Sequence[str], base: str, changes: str | None = None
) -> list[Target]:
    """The layers merged by the kernel's overlayfs and by fuse-overlayfs, below `base`.

    Each has an upper layer in `changes`, or is read-only without that directory.
    """
    return [_overlayfs(layers, base, changes), _fuse_overlayfs(layers, base, changes)]


def upper_of(changes: str, name: str) -> tuple[str, str]:
    """Create the upper and the work directory of a union in `changes`."""
    upper, work = (os.path.join(changes, name, part) for part in ("upper", "work"))
    os.makedirs(upper)
    os.mkdir(work)
    return upper, work


def _overlayfs(layers: Sequence[str], base: str, changes: str | None) -> Target:
    if os.geteuid() != 0:
        return Target(_OVERLAYFS, missing="only root may mount it")
    mountpoint = os.path.join(base, _OVERLAYFS)
    argv = [sys.executable, "-P", "-m", "zcfuse.bench._overlayfs", ":".join(layers), mountpoint]
    argv += upper_of(changes, _OVERLAYFS) if changes is not None else []
    return Target(_OVERLAYFS, tuple(argv), mountpoint)


def _fuse_overlayfs(layers: Sequence[str], base: str, changes: str | None) -> Target:
    program = shutil.which(_FUSE_OVERLAYFS)
    if program is None:
        return Target(
            _FUSE_OVERLAYFS, missing=f"not installed ('apt-get install {_FUSE_OVERLAYFS}')"
        )
    mountpoint = os.path.join(base, _FUSE_OVERLAYFS)
    options = f"{_FUSE_OVERLAYFS_OPTIONS},lowerdir={':'.join(layers)}"
    if changes is not None:
        options += ",upperdir={},workdir={}".format(*upper_of(changes, _FUSE_OVERLAYFS))
    return Target(_FUSE_OVERLAYFS, (program, "-f", "-o", options, mountpoint), mountpoint)


def _require_space(tree: SourceTree, base: str) -> None:
    names = [*([tree.large] if tree.large else []), *tree.small]
    needed = sum(os.stat(os.path.join(tree.root, name)).st_size for name in names) * _FREE_SHARE
    space = os.statvfs(base)
    if needed > space.f_bavail * space.f_frsize:
        raise SourceError(
            f"{base}: no space for layers with the measured files: they take"
            f" {needed >> 20} MiB free; set TMPDIR, or leave out --layers"
        )


def _copy(tree: SourceTree, name: str, layer: str) -> None:
    """Copy by large writes, as for the tree's files, to get the same folios in the page cache."""
    with open(os.path.join(tree.root, name), "rb") as source, open(_place(layer, name), "wb") as to:
        shutil.copyfileobj(source, to, _BLOCK)


def _hide(layers: Sequence[str], name: str, index: int) -> None:
    """Put an older version and a removed name into the layer below, if any."""
    if index % len(layers) != len(layers) - 1:
        _write(_place(layers[-1], name), b"an older version")
    gone = f"{name}.gone"
    with contextlib.suppress(PermissionError):  # before Linux 5.8 only root may create a whiteout
        os.mknod(_place(layers[0], gone), stat.S_IFCHR, os.makedev(0, 0))
        _write(_place(layers[-1], gone), b"removed since")


def _place(layer: str, name: str) -> str:
    path = os.path.join(layer, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
