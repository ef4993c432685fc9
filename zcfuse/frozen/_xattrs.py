"""Extended attributes in an inode, and what overlayfs takes for its own marks.

An attribute of the tree whose name begins with ``trusted.overlay.`` must not act as a mark. The
writer escapes it as overlayfs does (``trusted.overlay.overlay.``), and overlayfs or the reader
shows it as it was.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from zcfuse.frozen._layout import (
    LONG_PREFIX,
    MAX_XATTR_BYTES,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    XATTR_UNIT,
    rounded_up,
)

OVERLAY: Final = b"trusted.overlay."
ESCAPED: Final = b"trusted.overlay.overlay."
METACOPY: Final = b"trusted.overlay.metacopy"
REDIRECT: Final = b"trusted.overlay.redirect"
PIECES: Final = b"trusted.zcfuse.pieces"
"""Where the pieces of a file that only FUSE can serve begin, and their number."""

PIECES_VALUE: Final = struct.Struct("<QQ")

_FIRST_LONG: Final = 0x80
_TRUSTED: Final = 4
_NAME_BYTES: Final = 255
_VALUE_BYTES: Final = 0xFFFF
# A whole name, such as that of an ACL, before the names that only begin so.
_INDEXES: Final = sorted(
    ((prefix, index) for index, prefix in XATTR_PREFIXES.items()), key=lambda one: -len(one[0])
)


def escaped(name: bytes) -> bytes:
    """Return the name that an attribute of the tree has in the image."""
    return ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name


def encode(attributes: Mapping[bytes, bytes]) -> bytes:
    """Return the attributes as an inode has them; nothing if there are no attributes.

    Raises:
        ValueError: EROFS has no place for one of them; the text says for which and why.
    """
    if not attributes:
        return b""
    parts = [XATTR_HEADER.pack(0, 0)]
    for name, value in attributes.items():
        index, rest = _split(name)
        if len(rest) > _NAME_BYTES or len(value) > _VALUE_BYTES:
            raise ValueError(f"the extended attribute {name!r} is too long for EROFS")
        entry = XATTR_ENTRY.pack(len(rest), index, len(value)) + rest + value
        parts.append(entry.ljust(rounded_up(len(entry), XATTR_UNIT), b"\0"))
    encoded = b"".join(parts)
    if len(encoded) > MAX_XATTR_BYTES:
        raise ValueError("its extended attributes are too long for EROFS")
    return encoded


def long_prefixes() -> list[bytes]:
    """Return the prefixes that an image defines, as it has them."""
    base = XATTR_PREFIXES[_TRUSTED]
    found = []
    for index, prefix in XATTR_PREFIXES.items():
        if index >= _FIRST_LONG:
            infix = prefix.removeprefix(base)
            entry = LONG_PREFIX.pack(1 + len(infix), _TRUSTED) + infix
            found.append(entry.ljust(rounded_up(len(entry), XATTR_UNIT), b"\0"))
    return found


def count_of(encoded: bytes) -> int:
    """Return what the inode says of the length of its attributes (i_xattr_icount)."""
    if not encoded:
        return 0
    return 1 + (len(encoded) - XATTR_HEADER.size) // XATTR_UNIT


def unsupported(names: Iterable[bytes]) -> list[bytes]:
    """Return the names that EROFS cannot keep."""
    return [name for name in names if _index_of(name) is None]


@functools.lru_cache(maxsize=64)  # a tree has few names, each on many files
def _split(name: bytes) -> tuple[int, bytes]:
    found = _index_of(name)
    if found is None:
        raise ValueError(f"EROFS cannot keep the extended attribute {name!r}")
    prefix, index = found
    return index, name[len(prefix) :]


def _index_of(name: bytes) -> tuple[bytes, int] | None:
    for prefix, index in _INDEXES:
        if name == prefix or (prefix.endswith(b".") and name.startswith(prefix)):
            return prefix, index
    return None
