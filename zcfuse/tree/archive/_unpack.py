"""Decompression of a member of a zip archive: streaming, bounded by its declared size, checked."""

from __future__ import annotations

import bz2
import errno
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from zcfuse.tree.archive._members import Kind
from zcfuse.tree.archive._reader import read_at

CHUNK: Final = 256 * 1024
"""Bytes read, and bytes written, at a time."""

LZMA_HEADER: Final = 4
LZMA_PROPERTIES: Final = 5
SMALLEST_DICTIONARY: Final = 4096


class BadMemberError(OSError):
    """An unreadable member; EIO to the client. `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EIO, reason)
        self.reason = reason


class PackedMember(Protocol):
    """The place, compression, size and checksum of a member's bytes."""

    @property
    def kind(self) -> Kind: ...
    @property
    def offset(self) -> int: ...
    @property
    def stored(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def crc(self) -> int: ...


class _Decompressor(Protocol):
    """The common interface of the three methods."""

    def step(self, data: bytes) -> bytes:
        """Return at most CHUNK more bytes, from earlier input and `data`."""
        ...

    @property
    def wants_input(self) -> bool:
        """Whether further output needs more input."""
        ...

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed stream was seen."""
        ...


def unpack(fd: int, member: PackedMember, write: Callable[[bytes], object]) -> None:
    """Decompress a member of the archive `fd`, handing its bytes to `write` in pieces.

    Raises BadMemberError if the bytes do not match the archive's size and CRC-32; the written bytes
    are then invalid.
    """
    size, crc = 0, 0
    try:
        for piece in _pieces(fd, member):
            size += len(piece)
            if size > member.size:
                raise BadMemberError("it is longer than the archive says")
            crc = zlib.crc32(piece, crc)
            write(piece)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise BadMemberError(f"its compressed bytes are damaged ({error})") from error
    if size != member.size:
        raise BadMemberError(f"it has {size} bytes and not the {member.size} that the archive says")
    if crc != member.crc:
        raise BadMemberError("its bytes do not have the CRC-32 that the archive says")


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write some bytes at the position of `fd`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def unpacked_bytes(fd: int, member: PackedMember) -> bytes:
    """Return the bytes of a small member, whether packed or stored, checked as by unpack()."""
    pieces: list[bytes] = []
    unpack(fd, member, pieces.append)
    return b"".join(pieces)


def _pieces(fd: int, member: PackedMember) -> Iterator[bytes]:
    if member.kind == Kind.FILE:
        for offset in range(0, member.stored, CHUNK):
            yield read_at(fd, min(CHUNK, member.stored - offset), member.offset + offset)
        return
    done, decompressor = _decompressor(fd, member)
    while not decompressor.eof:
        data = b""
        if decompressor.wants_input:
            data = read_at(fd, min(CHUNK, member.stored - done), member.offset + done)
            done += len(data)
        piece = decompressor.step(data)
        if not (piece or data or decompressor.eof):
            if member.kind == Kind.LZMA:
                return  # its end mark may be missing; size and CRC-32 decide
            raise BadMemberError("its compressed bytes end too early")
        if piece:
            yield piece


def _decompressor(fd: int, member: PackedMember) -> tuple[int, _Decompressor]:
    """Return the size of the method's header, and a decompressor for the rest."""
    if member.kind == Kind.LZMA:
        return _lzma(fd, member)
    if member.kind == Kind.BZIP2:
        return 0, _Buffered(bz2.BZ2Decompressor())
    return 0, _Deflate()


class _Deflate:
    """zlib returns unused input separately."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(-zlib.MAX_WBITS)

    def step(self, data: bytes) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, CHUNK)

    @property
    def wants_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._inner.eof


class _Buffered:
    """bz2 and lzma keep unused input. bz2's errors are OSErrors without an errno."""

    def __init__(self, inner: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._inner = inner

    def step(self, data: bytes) -> bytes:
        try:
            return self._inner.decompress(data, CHUNK)
        except OSError as error:
            raise ValueError(str(error)) from error

    @property
    def wants_input(self) -> bool:
        return self._inner.needs_input

    @property
    def eof(self) -> bool:
        return self._inner.eof


def _lzma(fd: int, member: PackedMember) -> tuple[int, _Decompressor]:
    """Read the header that zip puts before LZMA data: version, length of properties, properties."""
    head = read_at(fd, min(LZMA_HEADER + LZMA_PROPERTIES, member.stored), member.offset)
    if len(head) < LZMA_HEADER + LZMA_PROPERTIES or head[2:4] != b"\x05\x00":
        raise BadMemberError("its LZMA header is damaged")
    rest, lc = divmod(head[4], 9)
    pb, lp = divmod(rest, 5)
    dictionary = int.from_bytes(head[5:9], "little")
    filters = {
        "id": lzma.FILTER_LZMA1,
        "lc": lc,
        "lp": lp,
        "pb": pb,
        # A dictionary larger than the member is useless, whatever the header requests.
        "dict_size": max(SMALLEST_DICTIONARY, min(dictionary, member.size)),
    }
    inner = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[filters])
    return len(head), _Buffered(inner)
