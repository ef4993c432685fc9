"""The description that an image holds of itself.

EROFS leaves the first 1024 bytes of an image alone. They hold the place of the description, which
lies behind the blocks of EROFS, and a digest of all that follows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from zcfuse.frozen._errors import DamagedImageError, ImageError
from zcfuse.frozen._image_file import ImageFile
from zcfuse.frozen._layout import SUPERBLOCK_OFFSET

HEADER: Final = struct.Struct("<8sQQ32s")
"""Magic number, offset and size of the description, SHA-256 of the bytes from 1024 on."""

HEADER_MAGIC: Final = b"zcfuse\x01\n"
RECORD: Final = struct.Struct("<QQq32s")
"""Node id, and of its backing file: size, time of modification, SHA-256 or zeros."""

_VERSION: Final = 1
_HASHED_BYTES: Final = 1 << 22


class Device(msgspec.Struct, frozen=True):
    """A file that blocks of the image's files lie in, as it was when the tree was frozen."""

    path: bytes
    size: int
    mtime_ns: int


class Table(msgspec.Struct, frozen=True):
    """Where a table lies in the image: its offset and size in bytes."""

    offset: int = 0
    size: int = 0


class About(msgspec.Struct, frozen=True):
    """The description of an image.

    `roots` are directories that the redirects of whole files begin at, the first one first.
    `fuse_only` says why the kernel cannot serve the tree by itself; it is empty where it can.
    `verity` counts the whole files whose digest of fs-verity the image has.
    """

    source: str
    roots: Sequence[bytes]
    devices: Sequence[Device]
    files: int
    directories: int
    other: int
    data_bytes: int
    copied_bytes: int
    frozen_ns: int
    fuse_only: Sequence[str] = ()
    pieces: Table = Table()
    records: Table = Table()
    digests: bool = False
    verity: int = 0
    version: int = _VERSION


def encoded(about: About) -> bytes:
    """Return the description as the image has it."""
    return msgspec.msgpack.encode(about)


def header_of(offset: int, size: int, digest: bytes) -> bytes:
    """Return the first bytes of an image."""
    return HEADER.pack(HEADER_MAGIC, offset, size, digest)


def is_image(head: bytes) -> bool:
    """Say whether the first bytes of a file are those of an image."""
    return head.startswith(HEADER_MAGIC)


def read_about(file: ImageFile) -> tuple[About, bytes]:
    """Return the description of an image, and the digest that its other bytes should have.

    Raises:
        ImageError: the file is no image, or one of another version.
        DamagedImageError: its description cannot be read.
    """
    if file.size < SUPERBLOCK_OFFSET or not is_image(head := file.read(0, HEADER.size)):
        raise ImageError(f"{file.path}: not an image: make one with 'zcfuse freeze'", usage=True)
    _, offset, size, digest = HEADER.unpack(head)
    try:
        about = msgspec.msgpack.decode(file.read(offset, size), type=About)
    except msgspec.MsgspecError as error:
        raise DamagedImageError(
            f"{file.path}: its description cannot be read: freeze the tree again"
        ) from error
    if about.version != _VERSION:
        raise ImageError(
            f"{file.path}: an image of version {about.version}, not {_VERSION}:"
            " freeze the tree again"
        )
    return about, digest


def digest_of(file: ImageFile) -> bytes:
    """Return the SHA-256 of an image, without the part that holds it."""
    found = hashlib.sha256()
    for at in range(SUPERBLOCK_OFFSET, file.size, _HASHED_BYTES):
        found.update(file.read(at, min(_HASHED_BYTES, file.size - at)))
    return found.digest()
