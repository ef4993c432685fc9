"""Asks the holder of a program's mount: whether a program serves, and to end where none does.

A holder answers at any time, so that a mount without a program can be shown and unmounted. The
messages are those of ``zcfuse/datapath/native/holder/messages.hpp``. Every wait is bounded.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import Final

from zcfuse.admin.status._registry import connect_holder
from zcfuse.linux import MountEntry

_QUERY: Final = b"Q"
_STATE_NOW: Final = b"W"
_END: Final = b"E"
_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class HolderState:
    """How the mount of a program is.

    Parameters:
        generation: which program serves, or served last; the first one is 1.
        serves: whether a program does, or is about to.
        left: seconds until the holder ends, and with it the connection; None while it serves.
        holder: the holder's process id.
    """

    generation: int
    serves: bool
    left: float | None
    holder: int


def holder_state(entry: MountEntry) -> HolderState | None:
    """Ask the holder of a mount; None if it has no holder that this user may ask."""
    try:
        message = _ask(entry, _QUERY)
    except OSError:
        return None
    if message[:1] != _STATE_NOW:
        return None
    from zcfuse.datapath import HOLDER_MESSAGE, HOLDER_STATE

    _, state = struct.unpack(HOLDER_MESSAGE, message)
    generation, serves, _, until, holder = struct.unpack(HOLDER_STATE, state)
    left = max(0.0, until / 1e9 - time.monotonic()) if until else None
    return HolderState(generation, bool(serves), left, holder)


def end_holder(entry: MountEntry) -> bool:
    """End a holder that waits for a program: clients then get ENOTCONN.

    Returns:
        False if it still runs after some seconds, or a program serves.
    """
    try:
        return not _ask(entry, _END)
    except TimeoutError:
        return False
    except OSError:
        return True


def _ask(entry: MountEntry, kind: bytes) -> bytes:
    """Return the holder's answer; b"" if it has ended or never began. Raises OSError."""
    client = connect_holder(entry.device, entry.owner[0], _TIMEOUT_S)
    if client is None:
        return b""
    from zcfuse.datapath import HOLDER_MESSAGE

    with client:
        client.send(struct.pack(HOLDER_MESSAGE, kind, b""))
        return client.recv(struct.calcsize(HOLDER_MESSAGE))
