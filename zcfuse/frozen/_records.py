"""The tables behind the blocks of an image: pieces of files, and records of backing files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Final

from zcfuse.frozen._about import RECORD
from zcfuse.frozen._layout import PIECE
from zcfuse.frozen._places import Devices, FileRun, Whole
from zcfuse.frozen._writer import ImageWriter
from zcfuse.tree import HOLE

_READ_BYTES: Final = 1 << 20


class Pieces:
    """The pieces of the files that only FUSE can serve; those in memory go into the image."""

    def __init__(self, writer: ImageWriter, devices: Devices) -> None:
        self._writer = writer
        self._devices = devices
        self._packed = bytearray()

    @property
    def encoded(self) -> list[bytes]:
        """The table."""
        return [bytes(self._packed)]

    def add(self, parts: Sequence[FileRun]) -> tuple[int, int]:
        """Add the pieces of a file; return the number of the first and how many they are."""
        first = len(self._packed) // PIECE.size
        for part in parts:
            device, offset = -1, 0
            if part.path:
                device, offset = self._devices.number(part), part.offset
            elif part.fd != HOLE:
                block = self._writer.store(part.fd, part.offset, part.length)
                device, offset = 0, block * self._writer.block_bytes
            self._packed += PIECE.pack(device, offset, part.length)
        return first, len(parts)


class Records:
    """Size, time of modification and perhaps the digest of each backing file."""

    def __init__(self, *, digest: bool) -> None:
        self._digest = digest
        self._packed = bytearray()

    @property
    def encoded(self) -> list[bytes]:
        """The table."""
        return [bytes(self._packed)]

    def add(self, nid: int, place: Whole, fd: int) -> None:
        """Record the backing file of a node, which is open as `fd`."""
        digest = sha256_of(fd) if self._digest else b""
        self._packed += RECORD.pack(nid, place.size, place.mtime_ns, digest)


def sha256_of(fd: int) -> bytes:
    """Return the SHA-256 of a whole open file."""
    found = hashlib.sha256()
    at = 0
    while data := os.pread(fd, _READ_BYTES, at):
        found.update(data)
        at += len(data)
    return found.digest()
