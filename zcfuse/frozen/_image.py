"""Reading an image: inodes, names, attributes and where the bytes of files lie.

Nothing of an image is trusted. Each number is checked where it is used, and one that does not fit
raises DamagedImageError. An image may be read from any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse.frozen import _layout, _xattrs
from zcfuse.frozen._about import digest_of, read_about
from zcfuse.frozen._errors import DamagedImageError
from zcfuse.frozen._image_file import ImageFile
from zcfuse.frozen._layout import (
    CHUNK,
    CHUNK_BASED,
    CHUNK_BITS,
    CHUNK_INDEXES,
    DIRENT,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE,
    NO_BLOCK,
    PIECE,
    SLOT_BYTES,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    Inode,
    Piece,
)

_SECOND_NS: Final = 1_000_000_000
_LARGEST: Final = 2**63 - 1
_TARGET_BYTES: Final = 4095
_CHUNKS: Final = 1 << 20
_NAME_BYTES: Final = 255


class Member:
    """An inode as the image has it: attributes, layout and where what follows it begins."""

    __slots__ = ("body", "inode", "layout", "nid", "number", "xattrs")

    def __init__(
        self, nid: int, inode: Inode, layout: int, number: int, xattrs: bytes, body: int
    ) -> None:
        self.nid = nid
        self.inode = inode
        self.layout = layout
        self.number = number
        self.xattrs = xattrs
        self.body = body

    def attributes(self) -> dict[bytes, bytes]:
        """Return the extended attributes, with the marks of the image."""
        return dict(_xattrs.decode(self.xattrs))


class FrozenImage:
    """An open image. Owns its file.

    Parameters:
        path: of the image.
        intact: whether to read all of it first, and to compare its digest.

    Raises:
        ImageError: it is no image; DamagedImageError: its bytes are others than those written.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, *, intact: bool = True) -> None:
        self.file: Final = ImageFile(path)
        try:
            about, digest = read_about(self.file)
            self.about: Final = about
            if intact and digest != digest_of(self.file):
                raise DamagedImageError(
                    f"{path}: damaged (its SHA-256 differs): freeze the tree again"
                )
            self._read_superblock()
        except BaseException:
            self.file.close()
            raise

    def member(self, nid: int) -> Member:
        """Return an inode."""
        at = nid * SLOT_BYTES
        form, count, mode, _, size, number, _, uid, gid, seconds, nanoseconds, nlink = INODE.unpack(
            self.file.read(at, INODE.size)
        )
        layout = form >> _layout.LAYOUT_SHIFT & 7
        if not form & _layout.EXTENDED or size > _LARGEST or nanoseconds >= _SECOND_NS:
            raise self._damaged(nid)
        seconds -= (seconds >> 63) << 64
        rdev = 0
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            rdev = os.makedev(*_layout.decoded_device(number))
        inode = Inode(mode, nlink, uid, gid, rdev, size, seconds * _SECOND_NS + nanoseconds)
        length = _xattrs.size_of(count)
        xattrs = self.file.read(at + INODE.size, length) if length else b""
        return Member(nid, inode, layout, number, xattrs, at + INODE.size + length)

    def target(self, member: Member) -> bytes:
        """Return the target of a symbolic link."""
        if member.inode.size > _TARGET_BYTES:
            raise self._damaged(member.nid)
        return b"".join(self.file.read(at, size) for at, size in self._places(member))

    def lookup(self, directory: Member, name: bytes) -> int | None:
        """Return the node id of a name, None where the directory has none."""
        low, high = 0, -(-directory.inode.size // self.block_bytes)
        while high - low > 1:
            middle = (low + high) // 2
            first = next(self._block(directory, middle))[0]
            low, high = (middle, high) if first <= name else (low, middle)
        for found, nid in self._block(directory, low):
            if found == name:
                return nid
        return None

    def entries(self, directory: Member, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """Yield (number to go on from, name, node id), in the order of the names' bytes.

        ``.`` and ``..`` are among them. A number holds the block and the place in it.
        """
        first, skipped = divmod(start, self.block_bytes)
        for index in range(first, -(-directory.inode.size // self.block_bytes)):
            for place, (name, nid) in enumerate(self._block(directory, index)):
                if place >= skipped:
                    yield index * self.block_bytes + place + 1, name, nid
            skipped = 0

    def pieces(self, member: Member, marks: dict[bytes, bytes]) -> Sequence[Piece]:
        """Return the pieces of a regular file that is not the whole of a backing file."""
        place = marks.get(_xattrs.PIECES)
        if place is not None:
            return self._listed_pieces(member, place)
        if member.layout == CHUNK_BASED:
            return self._chunks(member)
        return [Piece(0, at, length) for at, length in self._places(member)]

    def records(self) -> bytes:
        """Return what is recorded of the backing files."""
        table = self.about.records
        return self.file.read(table.offset, table.size)

    def close(self) -> None:
        """Close the image; a second call does nothing."""
        self.file.close()

    def _read_superblock(self) -> None:
        fields = SUPERBLOCK.unpack(self.file.read(SUPERBLOCK_OFFSET, SUPERBLOCK.size))
        magic, self._bits, self.root = fields[0], fields[3], fields[5]
        if magic != _layout.MAGIC or not 9 <= self._bits <= 12:
            raise DamagedImageError(
                f"{self.file.path}: damaged: its superblock is not one of EROFS"
            )
        self.block_bytes = 1 << self._bits

    def _places(self, member: Member) -> list[tuple[int, int]]:
        """Return (offset, length) of the bytes that lie in the image."""
        if member.layout not in (FLAT_INLINE, FLAT_PLAIN):
            raise self._damaged(member.nid)
        size = member.inode.size
        tail = size % self.block_bytes if member.layout == FLAT_INLINE else 0
        runs = [(member.number << self._bits, size - tail), (member.body, tail)]
        for run in runs:
            self.file.require(*run)
        return [run for run in runs if run[1]]

    def _block(self, directory: Member, index: int) -> Iterator[tuple[bytes, int]]:
        """Yield (name, node id) of one block of a directory."""
        block = self._block_bytes(directory, index)
        count = DIRENT.unpack_from(block)[1] // DIRENT.size if len(block) >= DIRENT.size else 0
        if not 0 < count <= len(block) // DIRENT.size:
            raise self._damaged(directory.nid)
        heads = [DIRENT.unpack_from(block, at * DIRENT.size) for at in range(count)]
        ends = [start for _, start, _ in heads[1:]] + [len(block.rstrip(b"\0"))]
        for (nid, start, _), end in zip(heads, ends, strict=True):
            name = block[start:end]
            fits = count * DIRENT.size <= start < end and len(name) <= _NAME_BYTES
            if not fits or b"/" in name or b"\0" in name:
                raise self._damaged(directory.nid)
            yield name, nid

    def _block_bytes(self, directory: Member, index: int) -> bytes:
        before = index * self.block_bytes
        for at, length in self._places(directory):
            if before < length:
                return self.file.read(at + before, min(self.block_bytes, length - before))
            before -= length
        raise self._damaged(directory.nid)

    def _chunks(self, member: Member) -> Sequence[Piece]:
        size, form = member.inode.size, member.number
        bits = self._bits + (form & CHUNK_BITS)
        count = -(-size >> bits)
        if not form & CHUNK_INDEXES or count > _CHUNKS:
            raise self._damaged(member.nid)
        at = _layout.rounded_up(member.body, CHUNK.size)
        table = self.file.read(at, count * CHUNK.size)
        pieces = []
        for index, (_, device, block) in enumerate(CHUNK.iter_unpack(table)):
            length = min(1 << bits, size - (index << bits))
            if block == NO_BLOCK:
                device, block = -1, 0
            pieces.append(self._piece(member, device, block << self._bits, length))
        return pieces

    def _listed_pieces(self, member: Member, place: bytes) -> Sequence[Piece]:
        table = self.about.pieces
        if len(place) != _xattrs.PIECES_VALUE.size:
            raise self._damaged(member.nid)
        first, count = _xattrs.PIECES_VALUE.unpack(place)
        if first + count > table.size // PIECE.size:
            raise self._damaged(member.nid)
        packed = self.file.read(table.offset + first * PIECE.size, count * PIECE.size)
        pieces = [self._piece(member, *piece) for piece in PIECE.iter_unpack(packed)]
        if sum(piece.length for piece in pieces) != member.inode.size:
            raise self._damaged(member.nid)
        return pieces

    def _piece(self, member: Member, device: int, offset: int, length: int) -> Piece:
        if device > 0:
            known = device <= len(self.about.devices)
            if not known or offset + length > self.about.devices[device - 1].size:
                raise self._damaged(member.nid)
        elif device == 0:
            self.file.require(offset, length)
        elif device != -1:
            raise self._damaged(member.nid)
        return Piece(device, offset, length)

    def _damaged(self, nid: int) -> DamagedImageError:
        return DamagedImageError(f"{self.file.path}: damaged: node {nid}")
