"""Decides whether files open without a message, on a mount that is immutable or pushes changes.

A mount with such opens has no passthrough: the kernel keeps a second copy of each page, and a first
read of a large file takes twice as long. An open with a message costs the time of a few hundred
KiB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence, Set
from typing import Final

from zcfuse.linux import AT_EMPTY_PATH, NEAR_MOUNTS, read_mounts, statx
from zcfuse.options import MountOptions
from zcfuse.tree import Tree, merged_directories

_LARGE_BYTES: Final = 256 << 10  # docs/measurements.md has the measurement
_MOST_FILES: Final = 2000
_FILES_A_DIRECTORY: Final = 100
_WITHIN_S: Final = 0.2


def opens_silently(tree: Tree, options: MountOptions, *, passthrough: bool) -> bool:
    """Say whether opens are to send no message, on a mount that is immutable or pushes changes.

    Parameters:
        tree: of the mount. Only files of near directories are looked at, a sample of them.
        options: of the mount.
        passthrough: whether the kernel may read files by itself.

    Returns:
        False if the files could pass through, and are large on average or not there yet. Also if
        an archive or a manifest may be replaced, because its readers keep what they opened, and if
        the tree is strict, because no lease is taken without a message.
    """
    lease = tree.lease_of(tree.root)
    coherence = (lease.coherence if lease is not None else None) or options.coherence
    if options.path == "passthrough" or coherence == "strict":
        return False
    if not options.immutable and next(tree.renewables(), None) is not None:
        return False  # who has an old archive open finishes with it
    if not passthrough or options.path != "auto" or (options.survive and options.immutable):
        return True
    directories = merged_directories(tree)
    if not directories or not all(map(_is_near, directories)):
        return True
    sizes = list(_sizes(directories))
    if not sizes:
        return options.immutable
    return sum(sizes) / len(sizes) < _LARGE_BYTES


def _is_near(directory: str) -> bool:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return NEAR_MOUNTS.is_near(statx(fd, b"", AT_EMPTY_PATH).mount)
    finally:
        os.close(fd)


def _sizes(directories: Sequence[str]) -> Iterator[int]:
    """Yield the sizes of a sample of the files, from many directories and within a time."""
    until = time.monotonic() + _WITHIN_S
    mounted = {entry.mountpoint for entry in read_mounts()}  # may hang: nothing looks at them
    left = list(directories)
    found = 0
    for directory in left:  # grows
        seen = 0
        for entry in _entries(directory, mounted):
            if entry.is_dir(follow_symlinks=False):
                left.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and seen < _FILES_A_DIRECTORY:
                seen += 1
                yield entry.stat(follow_symlinks=False).st_size
            if found + seen >= _MOST_FILES or time.monotonic() > until:
                return
        found += seen


def _entries(directory: str, mounted: Set[str]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.path not in mounted:
                    yield entry
    except OSError:
        return  # a directory that is gone or closed says nothing about the sizes
