"""The on-disk structures of EROFS that an image uses, and the limits that follow from them.

Shared by the writer and the reader. All numbers are little-endian. A node id (nid) counts slots of
32 bytes from the beginning of the image, because the images of this package have `meta_blkaddr` 0.
"""

from __future__ import annotations

import stat
import struct
from typing import Final

import msgspec

SUPERBLOCK_OFFSET: Final = 1024
"""The kernel leaves the bytes before it alone; the description of the image begins there."""

SUPERBLOCK: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
MAGIC: Final = 0xE0F5E1E2
COMPAT_MTIME: Final = 0x2
INCOMPAT_CHUNKED_FILE: Final = 0x4
INCOMPAT_DEVICE_TABLE: Final = 0x8
INCOMPAT_XATTR_PREFIXES: Final = 0x40

PREFIXES_OFFSET: Final = SUPERBLOCK_OFFSET + SUPERBLOCK.size
"""Where LONG_PREFIXES lie."""

DEVICE: Final = struct.Struct("<64sII56x")
"""A device: tag, blocks, and the address that it would have in one flat device."""

DEVICES_OFFSET: Final = PREFIXES_OFFSET + DEVICE.size
"""Where the table of devices begins: EROFS counts it in units of a device."""

INODE: Final = struct.Struct("<HHHHQIIIIQII16x")
"""An extended inode: format, xattr count, mode, reserved, size, union, ino, uid, gid, mtime..."""

SLOT_BYTES: Final = 32
DIRENT: Final = struct.Struct("<QHBx")
NID: Final = struct.Struct("<Q")

FLAT_PLAIN: Final = 0
FLAT_INLINE: Final = 2
CHUNK_BASED: Final = 4
EXTENDED: Final = 1
LAYOUT_SHIFT: Final = 1

CHUNK: Final = struct.Struct("<HHI")
"""Where a chunk lies: reserved, device (0: the image), first block."""

CHUNK_ADDRESS: Final = struct.Struct("<I")
"""The short form of a chunk, in files without CHUNK_INDEXES: its first block in the image."""

CHUNK_INDEXES: Final = 0x20
CHUNK_BITS: Final = 0x1F
NO_BLOCK: Final = 0xFFFFFFFF
"""The first block of a chunk that is a hole."""

XATTR_HEADER: Final = struct.Struct("<IB7x")
XATTR_ENTRY: Final = struct.Struct("<BBH")
XATTR_UNIT: Final = 4
XATTR_PREFIXES: Final = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    0x80: b"trusted.overlay.metacopy",
    0x81: b"trusted.overlay.redirect",
}
LONG_PREFIX: Final = struct.Struct("<HB")
"""Of a prefix that the image itself defines: the size of what follows, the index that it extends.

Numbered from 0x80. Each whole file has the two names, which therefore take no bytes in it.
"""
MAX_XATTR_BYTES: Final = (1 << 16) * XATTR_UNIT - XATTR_UNIT
"""All extended attributes of an inode together: their count has 16 bits."""

LARGE_BLOCK_BITS: Final = 12
SMALL_BLOCK_BITS: Final = 9

FEW_DEVICES: Final = 15
MANY_DEVICES: Final = 4096
"""Files that blocks may lie in, besides the image: as many as there is room for in its table."""

FILE_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}


class Layout(msgspec.Struct, frozen=True):
    """Log2 of the size of an image's blocks, and the number of devices that its table has."""

    block_bits: int = LARGE_BLOCK_BITS
    devices: int = FEW_DEVICES


class OtherLayoutNeededError(Exception):
    """A tree does not fit the layout of its image; `needed` is one that it may fit."""

    def __init__(self, needed: Layout) -> None:
        super().__init__(needed)
        self.needed = needed


class Inode(msgspec.Struct, frozen=True, gc=False):
    """The attributes that an inode keeps: `rdev` as makedev(3) has it, time in nanoseconds."""

    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int


class DeviceRun(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes of a file: `device` 0 is the image, -1 a hole, others count from 1."""

    device: int
    offset: int
    length: int


PIECE: Final = struct.Struct("<iQQ")
"""A piece as the image has it, for files that only FUSE can serve."""


def encoded_device(major: int, minor: int) -> int:
    """Return a device number as the kernel's new_encode_dev() has it."""
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def rounded_up(value: int, unit: int) -> int:
    """Return the least multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit
