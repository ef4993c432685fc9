"""Entering namespaces, by setns(2)."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_CLONE_NEWNS: Final = 0x20000


def enter_mount_namespace(descriptor: int) -> None:
    """Move this process into a mount namespace.

    Parameters:
        descriptor: an open file such as ``/proc/PID/ns/mnt``.

    Raises:
        OSError: EPERM if the process lacks CAP_SYS_ADMIN; EINVAL if it has threads or the file is
            no mount namespace.
    """
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
