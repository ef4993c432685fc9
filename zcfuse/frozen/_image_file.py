"""The file of an image, read piece by piece.

It is read and not mapped: a file that somebody truncates would end whoever touches its mapping.
"""

from __future__ import annotations

import os
from typing import Final

from zcfuse.frozen._errors import DamagedImageError


class ImageFile:
    """An open image. Owns its descriptor; any thread may read it. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.size: Final = os.fstat(self.fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; raise DamagedImageError where there are fewer."""
        self.require(offset, length)
        data = os.pread(self.fd, length, offset)
        if len(data) < length:
            raise DamagedImageError(f"{self.path}: damaged: it ends before byte {offset + length}")
        return data

    def require(self, offset: int, length: int) -> None:
        """Raise DamagedImageError unless the range lies within the image."""
        if not 0 <= offset <= offset + length <= self.size:
            raise DamagedImageError(f"{self.path}: damaged: a place outside the image")

    def close(self) -> None:
        """Close the image; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
