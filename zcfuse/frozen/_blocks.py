"""The chunks of a file that is made of parts: blocks of other files, of the image, or holes.

EROFS maps a file in chunks of one size, a power of two of blocks. So each part but the last must
end on a border of a block, and what lies in a real file must begin on one there. A small part
that does not is copied into the image. EROFS cannot map a file with a large one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import msgspec

from zcfuse.frozen._layout import CHUNK, NO_BLOCK, SMALL_BLOCK_BITS, OtherLayoutNeededError
from zcfuse.frozen._places import Devices, FileRun
from zcfuse.frozen._writer import ImageWriter
from zcfuse.tree import HOLE

COPIED_BYTES: Final = 1 << 16
"""A part up to this size whose file cannot lend its blocks is copied into the image."""

_SECTOR: Final = (1 << SMALL_BLOCK_BITS) - 1
_MOST_CHUNKS: Final = 1 << 20


class Chunks:
    """Chooses the chunks of files, and copies into the image what has to be copied."""

    def __init__(self, writer: ImageWriter, devices: Devices) -> None:
        self._writer = writer
        self._devices = devices
        self.copied_bytes = 0

    def copied(self, parts: Sequence[FileRun], size: int) -> bytes | None:
        """Return all bytes of a file that its inode should hold, None where it should not."""
        if size > COPIED_BYTES:
            return None
        if not _borders(parts) & _SECTOR and any(_is_mapped(part) for part in parts):
            return None
        data = b"".join(_read(part) for part in parts)
        self.copied_bytes += size
        return data

    def of(self, parts: Sequence[FileRun], size: int) -> tuple[int, list[tuple[int, int]]] | None:
        """Return log2 of the chunks' size and the chunks, None where EROFS cannot map the file.

        Raises:
            OtherLayoutNeededError: it could in an image of small blocks.
            OSError: what has to be copied cannot be read.
        """
        borders = _borders(parts)
        copied = [part for part in parts if part.path and not _is_mapped(part)]
        if borders & _SECTOR or any(part.length > COPIED_BYTES for part in copied):
            return None
        beginnings = [part.offset for part in parts if _is_mapped(part)]
        if (borders | _either(beginnings)) & self._writer.block_bytes - 1:
            needed = msgspec.structs.replace(self._writer.layout, block_bits=SMALL_BLOCK_BITS)
            raise OtherLayoutNeededError(needed)
        dirty = self._has_dirty_tail(parts[-1])
        bits = self._chunk_bits(size, borders, dirty=dirty)
        if size >> bits > _MOST_CHUNKS:
            return None
        return bits, self._mapped(parts, size, bits, dirty=dirty)

    def copy(self, part: FileRun) -> tuple[int, list[tuple[int, int]]]:
        """Copy a part into the image as one chunk; return log2 of its size, and the chunk.

        Raises OSError: the part cannot be read.
        """
        return self._writer.chunk_bits(part.length), [self._copied_at(part)]

    def _chunk_bits(self, size: int, borders: int, *, dirty: bool) -> int:
        """Return log2 of the largest chunk, or of that with the least index and copied bytes."""
        largest = self._writer.chunk_bits(size)
        if borders:
            largest = min(largest, (borders & -borders).bit_length() - 1)
        if not dirty:
            return largest
        least = self._writer.block_bytes.bit_length() - 1
        return min(
            range(least, largest + 1),
            key=lambda bits: CHUNK.size * (size >> bits) + (size & (1 << bits) - 1),
        )

    def _has_dirty_tail(self, part: FileRun) -> bool:
        """Say whether a client that maps the file would see bytes behind its end."""
        missing = -(part.offset + part.length) % self._writer.block_bytes
        if not _is_mapped(part) or not missing:
            return False
        return any(os.pread(part.fd, missing, part.offset + part.length))

    def _mapped(
        self, parts: Sequence[FileRun], size: int, bits: int, *, dirty: bool
    ) -> list[tuple[int, int]]:
        shift = self._writer.block_bytes.bit_length() - 1
        chunks: list[tuple[int, int]] = []
        start = 0
        last = size - 1 >> bits << bits
        for part in parts:
            device, first = self._begin(part)
            end = start + part.length
            for at in range(start, end, 1 << bits):
                if dirty and at == last:
                    block = self._writer.store(part.fd, part.offset + at - start, size - at)
                    self.copied_bytes += size - at
                    chunks.append((0, block))
                elif first == NO_BLOCK:
                    chunks.append((0, NO_BLOCK))
                else:
                    chunks.append((device, first + (at - start >> shift)))
            start = end
        return chunks

    def _begin(self, part: FileRun) -> tuple[int, int]:
        """Return the device and the first block of a part, which is copied if it has to be."""
        if part.fd == HOLE:
            return 0, NO_BLOCK
        if _is_mapped(part):
            shift = self._writer.block_bytes.bit_length() - 1
            return self._devices.number(part), part.offset >> shift
        return self._copied_at(part)

    def _copied_at(self, part: FileRun) -> tuple[int, int]:
        block = self._writer.store(part.fd, part.offset, part.length)
        self.copied_bytes += part.length
        return 0, block


def _is_mapped(part: FileRun) -> bool:
    """Say whether a part can be blocks of the real file that it lies in."""
    blocks = part.offset + part.length >> SMALL_BLOCK_BITS
    return bool(part.path) and part.offset & _SECTOR == 0 and blocks < NO_BLOCK


def _borders(parts: Sequence[FileRun]) -> int:
    """Return the bits that are set in the offset of any part but the first."""
    borders = at = 0
    for part in parts[:-1]:
        at += part.length
        borders |= at
    return borders


def _either(numbers: Sequence[int]) -> int:
    found = 0
    for number in numbers:
        found |= number
    return found


def _read(part: FileRun) -> bytes:
    if part.fd == HOLE:
        return bytes(part.length)
    data = b""
    while len(data) < part.length:
        piece = os.pread(part.fd, part.length - len(data), part.offset + len(data))
        if not piece:
            raise OSError(5, "the file ended before its bytes were copied")
        data += piece
    return data
