"""Where a path is: in which zcfuse mount, by which names from its root, by which node."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from zcfuse.linux._mount_table import MountEntry, read_mounts

_AT_EMPTY_PATH: Final = 0x1000
_HANDLE_BYTES: Final = 128  # MAX_HANDLE_SZ
# struct file_handle: the size of what follows, its type, and for FUSE the nodeid's upper and lower
# half and the generation (fs/fuse/inode.c).
_HEAD: Final = struct.Struct("=Ii")
_FUSE_HANDLE: Final = struct.Struct("=III")
_FILEID_INO64_GEN: Final = 0x81


class Place(NamedTuple):
    """A file of a mount: its path from the mount's root, without a slash at the start."""

    mount: MountEntry
    path: bytes


class Places:
    """Finds the mount of a path, by the mount table as it was when this was made."""

    def __init__(self, mounts: Sequence[MountEntry] | None = None) -> None:
        known = read_mounts() if mounts is None else mounts
        self._by_device: dict[int, list[MountEntry]] = {}
        for entry in known:
            if entry.is_ours:
                self._by_device.setdefault(os.makedev(*entry.device), []).append(entry)

    def find(self, path: str, device: int) -> Place | None:
        """Return where a file is, None if it is in no zcfuse mount.

        Parameters:
            path: absolute and without symbolic links.
            device: its st_dev.
        """
        entries = [one for one in self._by_device.get(device, ()) if _below(path, one.mountpoint)]
        if not entries:
            return None
        entry = max(entries, key=lambda one: len(one.mountpoint))
        # A bind mount shows a directory of the filesystem as its root.
        names = os.path.join(entry.root, os.path.relpath(path, entry.mountpoint))
        return Place(entry, os.fsencode(os.path.normpath(names).strip("/")).removeprefix(b"."))


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def nodeid_of(fd: int) -> int:
    """Return the nodeid of an open file of a FUSE mount, 0 where the kernel does not tell it.

    It is part of the file's handle (name_to_handle_at(2)).
    """
    handle = ctypes.create_string_buffer(_HEAD.pack(_HANDLE_BYTES, 0), _HEAD.size + _HANDLE_BYTES)
    mount = ctypes.c_int()
    call = ctypes.CDLL(None, use_errno=True).name_to_handle_at
    if call(fd, b"", handle, ctypes.byref(mount), _AT_EMPTY_PATH) < 0:
        return 0
    size, kind = _HEAD.unpack_from(handle)
    if kind != _FILEID_INO64_GEN or size != _FUSE_HANDLE.size:
        return 0
    upper, lower, _ = _FUSE_HANDLE.unpack_from(handle, _HEAD.size)
    return int(upper) << 32 | int(lower)
