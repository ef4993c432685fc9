"""Where the bytes of a file lie, as far as an image can say it.

The whole of a real file becomes a redirect; what begins on a border of 512 bytes becomes blocks of
a device that is the file itself; memory and small pieces are copied into the image. Anything else
is kept as a list of pieces, which FUSE alone can serve.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

import msgspec

from zcfuse.frozen._about import Device
from zcfuse.frozen._layout import MANY_DEVICES, Layout, OtherLayoutNeededError
from zcfuse.tree import HOLE, WHOLE_FILE, BackingFile

CHANGED: Final = "it changed while it was frozen"
"""Why a file has no place if the walk cannot know which of its bytes belong together."""


class Whole(msgspec.Struct, frozen=True):
    """The whole of a real file: its path, and its status as the image may record it."""

    path: bytes
    size: int
    mtime_ns: int


class FileRun(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes: of the file `path`, of a hole where `fd` is HOLE, otherwise of memory."""

    path: bytes
    fd: int
    offset: int
    length: int


class NotFreezableError(Exception):
    """The bytes of a file have no place; the text says why."""


def place_of(file: BackingFile, size: int) -> Whole | list[FileRun]:
    """Return where the bytes of an open file of `size` bytes lie.

    Raises:
        NotFreezableError: a program makes them, or a file behind it has no name.
    """
    if file.path == "upcall" or type(file).read is not BackingFile.read:
        raise NotFreezableError("a program makes its bytes when they are read")
    extents = file.extents
    if size and not extents:
        raise NotFreezableError("it has no bytes in any file")
    parts: list[FileRun] = []
    left = size
    for extent in extents:
        if extent.fd == HOLE:
            length = min(left, extent.length)
            parts.append(FileRun(b"", HOLE, 0, length))
        else:
            found = os.fstat(extent.fd)
            path = _name_of(extent.fd, found)
            whole = extent.offset == 0 and extent.length in (WHOLE_FILE, found.st_size)
            if path and whole and len(extents) == 1 and found.st_size == size:
                return Whole(path, found.st_size, found.st_mtime_ns)
            length = min(left, extent.length, max(0, found.st_size - extent.offset))
            parts.append(FileRun(path, extent.fd, extent.offset, length))
        left -= length
    if left:
        raise NotFreezableError(CHANGED)
    return [part for part in parts if part.length]


def _name_of(fd: int, status: os.stat_result) -> bytes:
    """Return the path of an open file, or nothing for memory; raise where it has none by now."""
    path = os.readlink(b"/proc/self/fd/%d" % fd)
    if path.startswith(b"/memfd:"):
        return b""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        found = None
    if found is None or not os.path.samestat(found, status) or not stat.S_ISREG(found.st_mode):
        raise NotFreezableError(f"its backing file {os.fsdecode(path)} has no name any more")
    return path


class Devices:
    """The files that blocks lie in, numbered from 1 as they are met."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._numbers: dict[bytes, int] = {}
        self._devices: list[Device] = []

    @property
    def all(self) -> Sequence[Device]:
        """The devices, by number."""
        return self._devices

    def number(self, part: FileRun) -> int:
        """Return the number of a part's file.

        Raises:
            OtherLayoutNeededError: the image has room for fewer than it could have.
        """
        known = self._numbers.get(part.path)
        if known is not None:
            return known
        if len(self._devices) == self._layout.devices < MANY_DEVICES:
            needed = msgspec.structs.replace(self._layout, devices=MANY_DEVICES)
            raise OtherLayoutNeededError(needed)
        status = os.fstat(part.fd)
        self._devices.append(Device(part.path, status.st_size, status.st_mtime_ns))
        self._numbers[part.path] = number = len(self._devices)
        return number

    def are_too_many(self) -> bool:
        """Say whether EROFS has no room for so many."""
        return len(self._devices) > MANY_DEVICES
