"""Packed members in memory: each decompressed once, into a sealed memfd, within a budget.

Members without an open file are evicted when memory is needed, least recently used first. A
separate thread unpacks a large member, or one of a compressed tar archive. Callers meanwhile get
BlockingIOError, as for a file under another process's lease, and the mount retries.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections import Counter
from functools import partial
from typing import Final

import msgspec

from zcfuse.tree._types import BeingMadeError
from zcfuse.tree.archive._budget import Slot, UnpackBudget
from zcfuse.tree.archive._compression import compression_in
from zcfuse.tree.archive._index import ArchiveIndex, Member
from zcfuse.tree.archive._members import STREAMED, Kind
from zcfuse.tree.archive._unpack import BadMemberError, unpack, write_all

LOG: Final = logging.getLogger("zcfuse.tree")

AT_ONCE_BYTES: Final = 256 * 1024
"""The caller waits for members up to this size: a few milliseconds."""

THREADS: Final = max(os.cpu_count() or 1, 2)

SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class UnpackedStatistics(msgspec.Struct, frozen=True):
    """Counts of unpacked members; `bytes` and `members` are in memory now.

    `unpacked` counts decompressions, `given_up` counts evictions, `reasons` explains failures.
    """

    budget: int
    bytes: int
    members: int
    unpacked: int
    given_up: int
    reasons: dict[str, int]


class UnpackedMembers:
    """One archive's unpacked members in memory. Thread-safe; owns their descriptors."""

    def __init__(self, index: ArchiveIndex, budget: UnpackBudget) -> None:
        """Keep members in memory within `budget`."""
        self._index = index
        self._budget = budget
        self._lock = budget.lock
        self._slots: dict[int, Slot] = {}
        self._bad: dict[int, str] = {}
        self._failed: dict[int, OSError] = {}
        self._bytes = 0
        self._closed = False
        # Streams are unpacked by processes; 0 is no key.
        streamed = compression_in(index.container) is not None
        self._stream_key = budget.streams.enter() if streamed else 0
        self._unpacked = self._given_up = 0
        self._reasons: Counter[str] = Counter()

    def statistics(self) -> UnpackedStatistics:
        """Return the counts so far."""
        with self._lock:
            held = sum(slot.fd >= 0 for slot in self._slots.values())
            counts = (self._bytes, held, self._unpacked, self._given_up)
            return UnpackedStatistics(self._budget.size, *counts, dict(self._reasons))

    def take(self, member: Member) -> int:
        """Return a descriptor of the member's bytes, borrowed until give_back().

        Raises OSError: BlockingIOError while it is being unpacked, EIO if it is damaged, ENOMEM if
        it does not fit the budget beside members in use, ESTALE if the archive changed.
        """
        with self._lock:
            if member.node in self._bad:
                raise BadMemberError(self._bad[member.node])
            if member.node in self._failed:
                raise self._failed.pop(member.node)
            slot = self._slots.get(member.node)
            if slot is not None:
                return self._used(slot)
            waits = member.size > AT_ONCE_BYTES or member.kind in STREAMED
            if waits and self._budget.threads >= THREADS:
                raise BeingMadeError(errno.EAGAIN, "other members are being unpacked")
            slot = self._reserve(member)
            if waits:
                self._budget.threads += 1
                work = threading.Thread(target=self._work, args=(member, slot), daemon=True)
                work.start()
                raise BeingMadeError(errno.EAGAIN, "being unpacked")
        self._fill(member, slot)
        with self._lock:
            return self._used(slot)

    def give_back(self, node: int) -> None:
        """Return a descriptor from take()."""
        with self._lock:
            slot = self._slots.get(node)
            if slot is not None:
                slot.users -= 1

    def close(self) -> None:
        """Free all; a second call does nothing. A member in a thread is freed at the thread's
        end."""
        with self._lock:
            key, self._stream_key = self._stream_key, 0
            self._closed = True
            for slot in list(self._slots.values()):
                self._drop(slot)
        if key:
            self._budget.streams.leave()

    def give_up(self, slot: Slot) -> None:
        """Evict a member, also for another archive; the caller holds the lock."""
        self._drop(slot)
        self._given_up += 1

    def _used(self, slot: Slot) -> int:
        """Count one more user of a slot; the caller holds the lock."""
        if slot.fd < 0:
            raise BeingMadeError(errno.EAGAIN, "being unpacked")
        self._budget.use(slot)
        slot.users += 1
        return slot.fd

    def _reserve(self, member: Member) -> Slot:
        """Make room for a member; the caller holds the lock."""
        sparse = member.kind == Kind.STREAMED_SPARSE
        slot = Slot(self, member.node, member.stored if sparse else member.size)
        if not self._budget.reserve(slot):
            reason = f"no room in the budget of {self._budget.size} bytes for unpacked members"
            self._reasons[reason] += 1
            raise OSError(errno.ENOMEM, reason)
        self._slots[member.node] = slot
        self._bytes += slot.size
        return slot

    def _drop(self, slot: Slot) -> None:
        """Forget a slot; the caller holds the lock."""
        del self._slots[slot.node]
        self._bytes -= slot.size
        self._budget.free(slot)

    def _work(self, member: Member, slot: Slot) -> None:
        """Unpack in a thread. The caller retries, and then also gets an error."""
        failed = None
        try:
            self._fill(member, slot)
        except BadMemberError:
            pass
        except OSError as error:
            failed = error
        finally:
            with self._lock:
                self._budget.threads -= 1
                if failed is not None:
                    self._failed[member.node] = failed

    def _fill(self, member: Member, slot: Slot) -> None:
        """Unpack a member into its slot, or drop the slot and raise OSError."""
        fd = -1
        try:
            fd = self._unpacked_file(member)
        except BadMemberError as error:
            LOG.warning("a member of %r: %s", os.fsdecode(self._index.identity.path), error.reason)
            with self._lock:
                self._bad[member.node] = error.reason
                self._reasons[error.reason] += 1
            raise
        finally:
            with self._lock:
                self._settle(slot, fd)

    def _settle(self, slot: Slot, fd: int) -> None:
        """Record the result of unpacking; the caller holds the lock."""
        if self._closed or self._slots.get(slot.node) is not slot:
            if fd >= 0:
                os.close(fd)
        elif fd < 0:
            self._drop(slot)
        else:
            slot.fd = fd
            self._unpacked += 1

    def _unpacked_file(self, member: Member) -> int:
        """Return a sealed memfd with a member's bytes."""
        fd = os.memfd_create("zcfuse-member", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with contextlib.ExitStack() as on_error:
            on_error.callback(os.close, fd)
            self._write(member, fd)
            self._index.check()  # unchanged, so all bytes came from one archive
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            on_error.pop_all()
        return fd

    def _write(self, member: Member, fd: int) -> None:
        """Write a member's bytes to a memfd."""
        if member.kind in STREAMED:
            os.ftruncate(fd, member.size)
            self._budget.streams.unpack(self._stream_key, self._index, member, fd)
            return
        archive = self._index.open()
        try:
            unpack(archive, member, partial(write_all, fd))
        finally:
            os.close(archive)
