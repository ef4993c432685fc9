"""The members of a tar archive, by tarfile's parser of headers.

This module walks from header to header instead of TarFile, which keeps every member in memory and
treats a bad header as the end of the archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any, Final, cast

from zcfuse.tree.archive._compression import DamagedStreamError
from zcfuse.tree.archive._errors import ArchiveError
from zcfuse.tree.archive._members import (
    LARGEST_SIZE,
    Damage,
    DataRange,
    HardLink,
    Kind,
    LeftOut,
    Record,
    clamp_owner,
)
from zcfuse.tree.archive._names import target_trouble
from zcfuse.tree.archive._pax import check_extended, nanoseconds
from zcfuse.tree.archive._reader import TarReader

BLOCK: Final = tarfile.BLOCKSIZE

GNU_DIRECTORY: Final = b"D"
"""A directory of `tar --incremental`, with a list of its names as data."""

GNU_LABEL: Final = b"V"
GNU_CONTINUED: Final = b"M"

SPARSE_SIZES: Final = ("GNU.sparse.size", "GNU.sparse.realsize")
"""Records that replace a member's size; without a map its bytes cannot be located."""

CUT: Final = "the archive ends before the member does"

SPECIAL: Final = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    GNU_LABEL: "a volume label",
    GNU_CONTINUED: "the rest of a member that begins on another volume",
}


def is_tar(start: bytes) -> bool:
    """Return whether a file with these first 512 bytes is a tar archive, possibly empty."""
    if start == bytes(BLOCK):
        return True
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def tar_members(
    path: bytes, reader: TarReader, *, salvage: bool
) -> Iterator[tuple[int, Record | HardLink | LeftOut]]:
    """Yield (bytes of the archive done, member) in the order of the archive.

    Raises ArchiveError at an unreadable header, with its position, and at an archive without a
    final block of zeros. With `salvage` either is a `Damage`, the last item.
    """
    archive = _empty_archive()
    archive.fileobj = cast(Any, reader)
    offset = count = 0
    cut = False
    while True:
        try:
            reader.begin(offset)
            if _at_end(reader, offset, count, cut):
                return
            member = _member(_next_header(archive, reader, offset), reader)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            where = _damage(error, offset, count)
            if not salvage or count == 0:
                raise ArchiveError(path, where, salvageable=count > 0) from error
            yield reader.end(), Damage(b"", where)
            return
        count += 1
        cut = isinstance(member, Record) and member.reason == CUT
        yield archive.offset, member
        offset = archive.offset


class _CutOffError(Exception):
    """The archive lacks its end. The message names the place and the loss."""


def _damage(error: Exception, offset: int, count: int) -> str:
    """Return the place of damage, and what lies before it."""
    if isinstance(error, _CutOffError):
        return str(error)
    if isinstance(error, DamagedStreamError):
        return f"its compressed stream is damaged or cut off, after {_members(count)} ({error})"
    return f"no readable tar header at byte {offset}, after {_members(count)} ({error})"


def _members(count: int) -> str:
    return f"{count} member" if count == 1 else f"{count} members"


def _empty_archive() -> tarfile.TarFile:
    """Return an empty TarFile, the state for tarfile's parser."""
    nothing = io.BytesIO(bytes(2 * BLOCK))
    return tarfile.TarFile(fileobj=nothing, mode="r", encoding="utf-8", errors="surrogateescape")


def _at_end(reader: TarReader, offset: int, count: int, cut: bool) -> bool:
    """Return whether the archive ends here, at a block of zeros. POSIX has two; one suffices.

    Raises _CutOffError if there is no block.
    """
    reader.seek(offset)
    block = reader.read(BLOCK)
    if len(block) == BLOCK:
        return block == bytes(BLOCK)
    lost = ", the last of which is cut (EIO)" if cut else ""
    what = " of its contents" if reader.streamed else ""
    raise _CutOffError(
        f"it was cut off at byte {reader.end()}{what}, after {_members(count)}{lost}"
    )


def _next_header(archive: tarfile.TarFile, reader: TarReader, offset: int) -> tarfile.TarInfo:
    """Parse the header at `offset`, and store the next one's place in `archive.offset`."""
    check_extended(reader, offset)
    reader.seek(offset)
    header = tarfile.TarInfo.fromtarfile(archive)
    sparse = _sparse_map(header)
    if sparse is not None and "size" in header.pax_headers:
        # tarfile computes the next header's place from the unpacked size.
        archive.offset = header.offset_data + _blocks(sum(length for _, length in sparse))
    if archive.offset <= offset:
        raise tarfile.HeaderError("its size is negative")
    if header.name[11:12] == "/" and header.name[:11].isdigit():
        _take_time_off(header, reader)
    return header


def _take_time_off(header: tarfile.TarInfo, reader: TarReader) -> None:
    """Undo a mistake of tarfile, which reads an access time in incremental archives as a prefix.

    GNU headers have times where ustar headers have the start of a long name.
    """
    reader.seek(header.offset_data - BLOCK)
    block = reader.read(BLOCK)
    if block[257:265] == tarfile.GNU_MAGIC and block[345:356] == header.name[:11].encode():
        header.name = header.name[12:]


def _member(header: tarfile.TarInfo, reader: TarReader) -> Record | HardLink | LeftOut:
    name = _bytes(header.pax_headers.get("GNU.sparse.name", header.name))
    if header.type in SPECIAL:
        return LeftOut(name, SPECIAL[header.type])
    if header.islnk():
        return HardLink(name, _bytes(header.linkname))
    record = Record(
        name=name,
        kind=Kind.FILE,
        mode=header.mode & 0o7777,
        uid=clamp_owner(header.uid),
        gid=clamp_owner(header.gid),
        mtime_ns=nanoseconds(header.pax_headers.get("mtime", header.mtime)),
    )
    if header.isdir() or header.type == GNU_DIRECTORY or name.endswith(b"/"):
        record.kind = Kind.DIRECTORY
        return record
    if header.issym():
        return _symlink(record, _bytes(header.linkname))
    _place(record, header, reader)
    return record


def _symlink(record: Record, target: bytes) -> Record | LeftOut:
    trouble = target_trouble(target)
    if trouble:
        return LeftOut(record.name, trouble)
    record.kind, record.link = Kind.SYMLINK, target
    return record


def _place(record: Record, header: tarfile.TarInfo, reader: TarReader) -> None:
    """Set the place of a regular file's bytes, or why it is unreadable."""
    sparse = _sparse_map(header)
    record.size = header.size
    if sparse is not None:
        record.size = int(header.pax_headers.get("GNU.sparse.realsize", header.size))
    if not 0 <= record.size <= LARGEST_SIZE:
        record.size = 0
        _give_up(record, "no file can have its size")
    elif sparse is None and not header.pax_headers.keys().isdisjoint(SPARSE_SIZES):
        _give_up(record, "it is sparse, and its map is missing")
    elif sparse is None:
        record.offset, record.stored = header.offset_data, record.size
    else:
        record.kind, record.offset = Kind.SPARSE, header.offset_data
        _place_pieces(record, [(start, length) for start, length in sparse if length])
    if record.kind == Kind.UNREADABLE:
        return
    crc = reader.checksum(record.offset, record.stored)
    if crc is None:
        _give_up(record, CUT)
    elif reader.streamed:
        _place_in_stream(record, crc)


def _place_in_stream(record: Record, crc: int) -> None:
    """Turn the place of a file's bytes into one of the decompressed bytes."""
    if record.kind == Kind.SPARSE:
        record.kind = Kind.STREAMED_SPARSE
    elif record.size:
        record.kind, record.crc = Kind.STREAMED, crc
    else:
        record.offset = 0


def _place_pieces(record: Record, sparse: list[tuple[int, int]]) -> None:
    """Turn a sparse map into pieces; `record.offset` and `.stored` then bound them all."""
    pieces, offset, end = [], record.offset, 0
    for logical, length in sparse:
        if logical < end or length < 0 or logical + length > record.size:
            return _give_up(record, "its sparse map is not in order")
        if offset % BLOCK:
            return _give_up(record, "its sparse map is not aligned to blocks")
        pieces.append(DataRange(logical, offset, length))
        offset += length
        end = logical + length
    record.pieces, record.stored = pieces, offset - record.offset
    return None


def _sparse_map(header: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return the (offset, length) of data ranges, or None if the member is not sparse."""
    return cast("list[tuple[int, int]] | None", header.sparse)


def _give_up(record: Record, reason: str) -> None:
    record.kind, record.reason, record.pieces = Kind.UNREADABLE, reason, ()


def _blocks(count: int) -> int:
    """Return `count` bytes rounded up to blocks."""
    return -(-count // BLOCK) * BLOCK


def _bytes(name: str) -> bytes:
    """Return a name's bytes in the archive."""
    return name.encode("utf-8", "surrogateescape")
