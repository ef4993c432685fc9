"""Estimates, before a mount, how many bytes of a program's files travel without passthrough."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from zcfuse.tree._bytes import Bytes
from zcfuse.tree._content import Blob, Concat, Slice, Zeros
from zcfuse.tree._dir import Dir
from zcfuse.tree._types import Tree

# Enough to know a tree by; a million names are not looked at before a mount.
_NAMES: Final = 4096
# Of a part that ends where its file ends, which a mount does not wait for.
_UNKNOWN_BYTES: Final = 1 << 20


def part_bytes(top: Dir) -> int:
    """Return the mean over the first files below `top`, level by level; 0 for whole files.

    What a program makes on demand does not count.
    """
    files = found = seen = 0
    left = deque([top])
    while left and seen < _NAMES:
        directory = left.popleft()
        if not directory.by_value:
            continue
        for name in islice(directory.names(), _NAMES - seen):
            seen += 1
            try:
                content = directory.get(name)
            except OSError:  # a client that looks at the name gets it
                continue
            if isinstance(content, Dir):
                left.append(content)
            elif isinstance(content, Tree | Blob):
                files += 1
                found += content.part_bytes() if isinstance(content, Tree) else _bytes_of(content)
    return found // files if files else 0


def _bytes_of(blob: Blob) -> int:
    if isinstance(blob, Bytes):
        return 0 if blob.place.whole else blob.size
    if isinstance(blob, Zeros):
        return blob.length
    if isinstance(blob, Slice):
        return _UNKNOWN_BYTES if blob.length is None else blob.length
    if isinstance(blob, Concat):
        return sum(_bytes_of(part) or _UNKNOWN_BYTES for part in blob.parts)
    return 0
