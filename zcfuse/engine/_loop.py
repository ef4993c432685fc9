"""A loop device for an image that EROFS cannot read as a file."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# <linux/loop.h>: LOOP_CONFIGURE came with Linux 5.8.
_GET_FREE: Final = 0x4C82
_CONFIGURE: Final = 0x4C0A
_READ_ONLY: Final = 1
_AUTOCLEAR: Final = 4
_CONFIG: Final = struct.Struct("=II 52xI 176x 64x")
"""struct loop_config: fd, block_size, and of its loop_info64 lo_flags alone."""

_ATTEMPTS: Final = 10


@contextmanager
def read_only_loop(path: str, reason: OSError) -> Iterator[bytes]:
    """Attach a file to a loop device, for a mount that is made within the block.

    The device goes away with the mount, or at the end of the block where none was made.

    Raises:
        OSError: there is no loop device; its text has `reason` too, why it was wanted.
    """
    image = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        name, loop = _attached(image, reason)
    finally:
        os.close(image)
    try:
        yield name
    finally:
        os.close(loop)


def _attached(image: int, reason: OSError) -> tuple[bytes, int]:
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        text = f"{reason.strerror}, and no loop device: {error.strerror}"
        raise OSError(error.errno, text) from error
    try:
        for _ in range(_ATTEMPTS):
            name = b"/dev/loop%d" % fcntl.ioctl(control, _GET_FREE)
            loop = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop, _CONFIGURE, _CONFIG.pack(image, 0, _READ_ONLY | _AUTOCLEAR))
            except OSError:
                os.close(loop)  # another process was quicker
                continue
            return name, loop
    finally:
        os.close(control)
    raise OSError(reason.errno, f"{reason.strerror}, and no free loop device")
