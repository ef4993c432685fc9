"""The digests of fs-verity: overlayfs compares them when it opens a backing file.

A file with such a digest cannot be written any more, but another file can take its place. The mark
of a whole file in an image has the digest as overlayfs wants it, and overlayfs then refuses others.
"""

from __future__ import annotations

import array
import errno
import fcntl
import struct
from typing import Final

_MEASURE: Final = 0xC0046686  # FS_IOC_MEASURE_VERITY
_DIGEST: Final = struct.Struct("HH")  # of struct fsverity_digest: algorithm, size; the bytes follow
_MOST_BYTES: Final = 64  # of SHA-512
_MARK: Final = struct.Struct("BBBB")  # of struct ovl_metacopy: version, length, flags, algorithm
_WITHOUT: Final = frozenset({errno.ENODATA, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})


def verity_of(fd: int) -> tuple[int, bytes] | None:
    """Return the algorithm and the digest that fs-verity has of an open file, None without it.

    Raises:
        OSError: the filesystem cannot read the digest.
    """
    answer = array.array("B", _DIGEST.pack(0, _MOST_BYTES) + bytes(_MOST_BYTES))
    try:
        fcntl.ioctl(fd, _MEASURE, answer)
    except OSError as error:
        if error.errno in _WITHOUT:
            return None
        raise
    algorithm, size = _DIGEST.unpack_from(answer)
    return algorithm, answer.tobytes()[_DIGEST.size : _DIGEST.size + size]


def mark_of(verity: tuple[int, bytes] | None) -> bytes:
    """Return the value of overlayfs's mark of a whole file; it is empty without a digest."""
    if verity is None:
        return b""
    algorithm, digest = verity
    return _MARK.pack(0, _MARK.size + len(digest), 0, algorithm) + digest
