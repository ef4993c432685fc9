"""Writing an EROFS image from the leaves up, in one pass and with little memory.

The writer writes a directory after its entries, and so knows their node ids. It fills in ``..``
later, when the directory above has a node id. Inodes go to runs of blocks that
the writer takes from the end of the image as it needs them, and so do the bytes of files.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from zcfuse.frozen import _layout
from zcfuse.frozen._layout import (
    CHUNK,
    CHUNK_ADDRESS,
    CHUNK_BASED,
    CHUNK_BITS,
    CHUNK_INDEXES,
    DEVICE,
    DEVICES_OFFSET,
    DIRENT,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODE,
    LAYOUT_SHIFT,
    NID,
    NO_BLOCK,
    PREFIXES_OFFSET,
    SLOT_BYTES,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_UNIT,
    Inode,
    Layout,
    rounded_up,
)
from zcfuse.frozen._xattrs import count_of, long_prefixes

Entry = tuple[bytes, int, int]
"""Of a directory: name, node id, file type."""

_RUN_BYTES: Final = 1 << 16  # of inodes, taken from the image at a time
_COPY_BYTES: Final = 1 << 20
_SECOND_NS: Final = 1_000_000_000
_MASK64: Final = 2**64 - 1
_CHUNK_FORMAT: Final = struct.Struct("<HH")


class ImageWriter:
    """Writes one image to `fd`, which stays the caller's. One thread uses it.

    Parameters:
        fd: an empty file, open for reading and writing.
        layout: the size of its blocks, and the room for the table of its devices.
    """

    def __init__(self, fd: int, layout: Layout) -> None:
        self._fd = fd
        self.layout: Final = layout
        self._bits = layout.block_bits
        self.block_bytes = 1 << layout.block_bits
        self._inodes = 0
        first = DEVICES_OFFSET + layout.devices * DEVICE.size
        self._run_start = first
        self._run = bytearray(rounded_up(first, self.block_bytes) - first)
        self._used = 0
        self._end = rounded_up(first, self.block_bytes)
        self._root: tuple[int, int] = (0, 0)

    def reserve_root(self, xattrs: bytes) -> int:
        """Keep a place for the root directory, and return its node id.

        The superblock has 16 bits for it, so that it is taken before all others.
        """
        size = INODE.size + len(xattrs)
        at = self._place(size, 0)
        self._root = (at, size)
        return at // SLOT_BYTES

    def directory(
        self,
        inode: Inode,
        xattrs: bytes,
        entries: list[Entry],
        parent: int = 0,
        *,
        root: bool = False,
    ) -> tuple[int, int]:
        """Write a directory and return its node id and where in the image its ``..`` stands.

        `entries` are sorted in place. `parent` may be filled in later (`set_parent`).
        """
        own = self._root[0] // SLOT_BYTES
        kind = _layout.FILE_TYPES[stat.S_IFDIR]
        entries += [(b".", own, kind), (b"..", parent or own, kind)]
        entries.sort()
        blocks, dot, dotdot = _directory_blocks(entries, self.block_bytes)
        size = (len(blocks) - 1) * self.block_bytes + len(blocks[-1])
        given = Inode(inode.mode, inode.nlink, inode.uid, inode.gid, 0, size, inode.mtime_ns)
        at, data, tail = self._flat(given, xattrs, blocks, reserved=root)
        inlined = (len(blocks) - 1) * self.block_bytes if tail else size
        places = [tail + at - inlined if at >= inlined else data + at for at in (dot, dotdot)]
        self._poke(places[0], NID.pack(at // SLOT_BYTES))
        return at // SLOT_BYTES, places[1]

    def set_parent(self, place: int, parent: int) -> None:
        """Fill in a ``..``, at the place that `directory` returned."""
        self._poke(place, NID.pack(parent))

    def data(self, inode: Inode, xattrs: bytes, data: bytes) -> int:
        """Write an inode whose bytes lie in the image: a file or a symbolic link."""
        step = self.block_bytes
        blocks = [data[at : at + step] for at in range(0, len(data), step)]
        return self._flat(inode, xattrs, blocks)[0] // SLOT_BYTES

    def special(self, inode: Inode, xattrs: bytes) -> int:
        """Write an inode without bytes: a device, FIFO or socket, or an empty file."""
        major, minor = os.major(inode.rdev), os.minor(inode.rdev)
        number = _layout.encoded_device(major, minor)
        head = self._head(inode, xattrs, FLAT_PLAIN, number)
        return self._put(head, b"") // SLOT_BYTES

    def chunked(
        self, inode: Inode, xattrs: bytes, chunk_bits: int, chunks: Sequence[tuple[int, int]]
    ) -> int:
        """Write a file of chunks, each (device, first block); NO_BLOCK for a hole."""
        table = b"".join(CHUNK.pack(0, device, block) for device, block in chunks)
        form = CHUNK_INDEXES | chunk_bits - self._bits
        return self._mapped(inode, xattrs, form, table, CHUNK.size)

    def hole(self, inode: Inode, xattrs: bytes) -> int:
        """Write a file that has no bytes in the image."""
        bits = self.chunk_bits(inode.size)
        count = -(-inode.size >> bits) if inode.size else 0
        table = CHUNK_ADDRESS.pack(NO_BLOCK) * count
        return self._mapped(inode, xattrs, bits - self._bits, table, CHUNK_ADDRESS.size)

    def chunk_bits(self, size: int) -> int:
        """Return log2 of the least chunk that holds `size` bytes, as far as EROFS has one."""
        return min(max(self._bits, (size - 1).bit_length()), self._bits + CHUNK_BITS)

    def store(self, fd: int, offset: int, length: int) -> int:
        """Copy bytes of another file into blocks of the image; return the first block's number.

        Raises OSError; EIO where the file ends before.
        """
        at = self._take(length)
        done = 0
        while done < length:
            part = os.pread(fd, min(_COPY_BYTES, length - done), offset + done)
            if not part:
                raise OSError(5, "the file ended before its bytes were copied")
            os.pwrite(self._fd, part, at + done)
            done += len(part)
        return at >> self._bits

    def append(self, parts: Iterable[bytes]) -> tuple[int, int]:
        """Write bytes that EROFS does not know behind the image; return their offset and size.

        Call it after `finish`.
        """
        at = done = self._end
        for part in parts:
            os.pwrite(self._fd, part, done)
            done += len(part)
        self._end = rounded_up(done, self.block_bytes)
        os.ftruncate(self._fd, self._end)
        return at, done - at

    def finish(self, devices: Sequence[int], mtime_ns: int) -> None:
        """Write what is still in memory and the superblock; `devices` are sizes in bytes."""
        self._flush()
        os.ftruncate(self._fd, self._end)
        table = b"".join(
            DEVICE.pack(b"%d" % number, min(-(-size >> self._bits), NO_BLOCK), 0)
            for number, size in enumerate(devices, 1)
        )
        prefixes = long_prefixes()
        os.pwrite(self._fd, b"".join(prefixes), PREFIXES_OFFSET)
        os.pwrite(self._fd, table, DEVICES_OFFSET)
        features = _layout.INCOMPAT_CHUNKED_FILE | _layout.INCOMPAT_XATTR_PREFIXES
        features |= _layout.INCOMPAT_DEVICE_TABLE if devices else 0
        seconds, nanoseconds = divmod(mtime_ns, _SECOND_NS)
        superblock = SUPERBLOCK.pack(
            *(_layout.MAGIC, 0, _layout.COMPAT_MTIME, self._bits, 0),
            *(self._root[0] // SLOT_BYTES, self._inodes, seconds, nanoseconds),
            *(self._end >> self._bits, 0, 0, os.urandom(16), b"zcfuse", features, 0),
            *(len(devices), DEVICES_OFFSET // DEVICE.size, 0),
            *(len(prefixes), PREFIXES_OFFSET // XATTR_UNIT, 0, 0),
        )
        os.pwrite(self._fd, superblock, SUPERBLOCK_OFFSET)

    def _mapped(self, inode: Inode, xattrs: bytes, form: int, table: bytes, unit: int) -> int:
        number = int.from_bytes(_CHUNK_FORMAT.pack(form, 0), "little")
        head = self._head(inode, xattrs, CHUNK_BASED, number)
        return self._put(head + bytes(-len(head) % unit) + table, b"") // SLOT_BYTES

    def _flat(
        self, inode: Inode, xattrs: bytes, blocks: Sequence[bytes], *, reserved: bool = False
    ) -> tuple[int, int, int]:
        """Write an inode and its bytes; return where it, its blocks and its tail are (0: none)."""
        tail = b""
        room = self.block_bytes - INODE.size - len(xattrs) % self.block_bytes
        longest = min(max(room, self.block_bytes // 2), self.block_bytes - 1)
        if blocks and not reserved and len(blocks[-1]) <= longest:
            *blocks, tail = blocks
        data = self._take(len(blocks) * self.block_bytes) if blocks else 0
        for index, block in enumerate(blocks):
            os.pwrite(self._fd, block, data + index * self.block_bytes)
        layout = FLAT_INLINE if tail else FLAT_PLAIN
        head = self._head(inode, xattrs, layout, data >> self._bits)
        if reserved:
            at = self._root[0]
            self._poke(at, head)
        else:
            at = self._put(head, tail)
        return at, data, at + len(head) if tail else 0

    def _head(self, inode: Inode, xattrs: bytes, layout: int, number: int) -> bytes:
        self._inodes += 1
        seconds, nanoseconds = divmod(inode.mtime_ns, _SECOND_NS)
        form = _layout.EXTENDED | layout << LAYOUT_SHIFT
        return (
            INODE.pack(
                *(form, count_of(xattrs), inode.mode, 0, inode.size, number),
                *(self._inodes & NO_BLOCK, inode.uid, inode.gid, seconds & _MASK64),
                *(nanoseconds, inode.nlink),
            )
            + xattrs
        )

    def _put(self, head: bytes, tail: bytes) -> int:
        """Write an inode with what follows it, and return where it is."""
        at = self._place(len(head), len(tail))
        start = at - self._run_start
        self._run[start : start + len(head) + len(tail)] = head + tail
        return at

    def _place(self, size: int, tail: int) -> int:
        """Return a free place; no border of a block lies within the tail."""
        used = self._shifted(self._run_start + self._used, size, tail) - self._run_start
        if used + size + tail > len(self._run):
            self._flush()
            length = max(_RUN_BYTES, rounded_up(size + tail + self.block_bytes, self.block_bytes))
            self._run_start = self._take(length)
            self._run = bytearray(length)
            used = self._shifted(self._run_start, size, tail) - self._run_start
        self._used = rounded_up(used + size + tail, SLOT_BYTES)
        return self._run_start + used

    def _shifted(self, at: int, size: int, tail: int) -> int:
        begin = (at + size) % self.block_bytes
        if tail and begin + tail > self.block_bytes:
            return at + rounded_up(self.block_bytes - begin, SLOT_BYTES)
        return at

    def _flush(self) -> None:
        """Write the run of inodes; blocks of it that nothing uses are given back."""
        os.pwrite(self._fd, self._run, self._run_start)
        unused = len(self._run) - rounded_up(self._used, self.block_bytes)
        if self._run_start + len(self._run) == self._end and unused > 0:
            self._end -= unused // self.block_bytes * self.block_bytes
        self._run = self._run[: self._used]

    def _take(self, length: int) -> int:
        at = self._end
        self._end += rounded_up(length, self.block_bytes)
        return at

    def _poke(self, at: int, data: bytes) -> None:
        start = at - self._run_start
        if 0 <= start <= len(self._run) - len(data):
            self._run[start : start + len(data)] = data
        else:
            os.pwrite(self._fd, data, at)


def _directory_blocks(entries: Sequence[Entry], block_bytes: int) -> tuple[list[bytes], int, int]:
    """Return the blocks of a directory, and where in it the node ids of ``.`` and ``..`` are."""
    blocks: list[bytes] = []
    dot = dotdot = 0
    pending: list[Entry] = []
    used = 0
    for entry in entries:
        size = DIRENT.size + len(entry[0])
        if used + size > block_bytes:
            blocks.append(_directory_block(pending).ljust(block_bytes, b"\0"))
            pending, used = [], 0
        place = len(blocks) * block_bytes + len(pending) * DIRENT.size
        if entry[0] == b".":
            dot = place
        elif entry[0] == b"..":
            dotdot = place
        pending.append(entry)
        used += size
    blocks.append(_directory_block(pending))
    return blocks, dot, dotdot


def _directory_block(entries: Sequence[Entry]) -> bytes:
    at = len(entries) * DIRENT.size
    heads, names = [], []
    for name, nid, kind in entries:
        heads.append(DIRENT.pack(nid, at, kind))
        names.append(name)
        at += len(name)
    return b"".join(heads + names)
