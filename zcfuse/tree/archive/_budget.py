"""The memory budget for unpacked members, and eviction when it is short."""

from __future__ import annotations

import os
import resource
import threading
from typing import Final, Protocol

from zcfuse.tree.archive._streamed import StreamUnpackers

DEFAULT_BUDGET: Final = 1 << 30
"""Bytes of memory for unpacked members."""

DESCRIPTOR_SHARE: Final = 4
"""The usable part of RLIMIT_NOFILE, as a divisor."""


class _Owner(Protocol):
    """The archive of a member."""

    def give_up(self, slot: Slot) -> None:
        """Drop an unused member; the caller holds the budget's lock."""


class Slot:
    """A member in memory, or being unpacked (`fd` -1). The budget's lock guards it."""

    __slots__ = ("fd", "node", "owner", "size", "users")

    def __init__(self, owner: _Owner, node: int, size: int) -> None:
        self.owner = owner
        self.node = node
        self.size = size
        self.fd = -1
        self.users = 0


class UnpackBudget:
    """Bytes of memory for unpacked members, shared by archives that are mounted together.

    It includes members being unpacked. All its archives share `lock`, which callers hold for each
    call; `threads` is the number of unpacking threads, and `streams` unpacks from compressed tar
    archives.
    """

    def __init__(self, size: int = DEFAULT_BUDGET) -> None:
        self.size: Final = size
        self.lock: Final = threading.Lock()
        self.threads = 0
        self.streams: Final = StreamUnpackers()
        self._used = 0
        self._slots: dict[Slot, None] = {}  # least recently used first

    def reserve(self, slot: Slot) -> bool:
        """Make room for a slot and return whether that succeeded; otherwise evict nothing."""
        held = sum(other.size for other in self._slots if other.users or other.fd < 0)
        if held + slot.size > self.size:
            return False
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // DESCRIPTOR_SHARE
        for other in [*self._slots]:
            if self._used + slot.size <= self.size and len(self._slots) < most:
                break
            if not other.users and other.fd >= 0:
                other.owner.give_up(other)
        self._slots[slot] = None
        self._used += slot.size
        return True

    def use(self, slot: Slot) -> None:
        """Mark a slot as used now."""
        self._slots[slot] = self._slots.pop(slot)

    def free(self, slot: Slot) -> None:
        """Free the memory of a slot."""
        del self._slots[slot]
        self._used -= slot.size
        fd, slot.fd = slot.fd, -1
        if fd >= 0:
            os.close(fd)
