"""File handles of the kernel, by name_to_handle_at(2)."""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from zcfuse.linux._files import AT_EMPTY_PATH

_HANDLE_BYTES: Final = 128  # MAX_HANDLE_SZ
# struct file_handle: the size of what follows, its type, and for FUSE the nodeid's upper and lower
# half and the generation (fs/fuse/inode.c).
_HEAD: Final = struct.Struct("=Ii")
_FUSE_HANDLE: Final = struct.Struct("=III")
_FILEID_INO64_GEN: Final = 0x81


def nodeid_of(fd: int) -> int:
    """Return the nodeid of an open file of a FUSE mount, 0 if the kernel does not say it."""
    handle = ctypes.create_string_buffer(_HEAD.pack(_HANDLE_BYTES, 0), _HEAD.size + _HANDLE_BYTES)
    mount = ctypes.c_int()
    call = ctypes.CDLL(None, use_errno=True).name_to_handle_at
    if call(fd, b"", handle, ctypes.byref(mount), AT_EMPTY_PATH) < 0:
        return 0
    size, kind = _HEAD.unpack_from(handle)
    if kind != _FILEID_INO64_GEN or size != _FUSE_HANDLE.size:
        return 0
    upper, lower, _ = _FUSE_HANDLE.unpack_from(handle, _HEAD.size)
    return int(upper) << 32 | int(lower)
