"""The kernel's knobs of one FUSE connection: ending it by force, and its readahead.

Owns no state; files under ``/sys`` are written and closed at once. Any thread may call it.
"""

from __future__ import annotations

import os
from typing import Final

CONNECTIONS: Final = "/sys/fs/fuse/connections"
BACKING_DEVICES: Final = "/sys/class/bdi"
# dev_t inside the kernel: 20 bits of minor number (include/linux/kdev_t.h). fusectl names its
# directories so.
_MINOR_BITS: Final = 20


def abort_file(device: tuple[int, int]) -> str:
    """Return the file that ends the connection of this filesystem when it is written to.

    It exists only where fusectl is mounted on ``/sys/fs/fuse/connections``.
    """
    major, minor = device
    return f"{CONNECTIONS}/{major << _MINOR_BITS | minor}/abort"


def open_abort_file(device: tuple[int, int]) -> int:
    """Open the connection's abort file; return its descriptor, or -1 if that fails.

    The descriptor stays bound to this connection: once that has ended, a write to it does nothing.
    """
    try:
        return os.open(abort_file(device), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def write_abort(descriptor: int) -> bool:
    """End the connection: requests that are out fail with ECONNABORTED, later ones with ENOTCONN.

    Parameters:
        descriptor: what `open_abort_file` returned.

    Returns:
        Whether it was done.
    """
    if descriptor < 0:
        return False
    try:
        return os.write(descriptor, b"1") == 1
    except OSError:
        return False


def set_read_ahead(device: tuple[int, int], kibibytes: int) -> str:
    """Set how far the kernel reads ahead on this filesystem, in KiB.

    Returns:
        The empty string, or the reason why it stayed as it was (an ordinary user may not).
    """
    major, minor = device
    return _write(f"{BACKING_DEVICES}/{major}:{minor}/read_ahead_kb", str(kibibytes))


def _write(path: str, text: str) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
