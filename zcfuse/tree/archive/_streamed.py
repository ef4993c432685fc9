"""Unpacks members of compressed tar archives, in processes that the mounted archives share.

A process starts with the first member, and ends with the last archive. It opens an archive with
the seek points of its index. Any thread may call this; each waits for its member.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import threading
from typing import Final

import msgspec

from zcfuse.tree.archive._format import PIECE
from zcfuse.tree.archive._index import ArchiveIndex, Member
from zcfuse.tree.archive._limits import (
    LEAST_MEMORY,
    STALLED_SECONDS,
    STREAM_MEMORY,
    seconds_limit,
)
from zcfuse.tree.archive._members import Kind
from zcfuse.tree.archive._process import Process, ended
from zcfuse.tree.archive._stream_messages import (
    DATAGRAM_BYTES,
    OPEN_ARCHIVES,
    Bad,
    Failed,
    Outcome,
    Unpack,
)
from zcfuse.tree.archive._unpack import BadMemberError, write_all

_MODULE: Final = "zcfuse.tree.archive._stream_worker"

_keys: Final = itertools.count(1)


class _Unpacker:
    """One process, and the keys of the archives that it has open, the least recent first."""

    def __init__(self) -> None:
        self._process = Process(_MODULE, STALLED_SECONDS)
        self.keys: list[int] = []

    def unpack(self, key: int, index: ArchiveIndex, member: Member, file: int) -> None:
        """Write a member to `file`. Raises OSError; the process may then have ended."""
        with contextlib.ExitStack() as stack:
            job, fds = self._job(key, index, member, stack)
            answer = self._asked(job, [file, *fds])
        if isinstance(answer, Bad):
            raise BadMemberError(answer.reason)
        if isinstance(answer, Failed):
            raise OSError(answer.number or errno.EIO, answer.text)

    def end(self) -> None:
        """End the process."""
        self._process.kill()

    def _job(
        self, key: int, index: ArchiveIndex, member: Member, stack: contextlib.ExitStack
    ) -> tuple[Unpack, list[int]]:
        """Return a job and its descriptors, which `stack` closes."""
        fds = []
        if member.kind == Kind.STREAMED_SPARSE:
            fds.append(_in_memory(_pieces(index, member), stack))
        archive = index.open()
        stack.callback(os.close, archive)
        opens, closes = key not in self.keys, 0
        if opens:
            fds += [archive, _in_memory(index.seek_points(), stack)]
            closes = self.keys.pop(0) if len(self.keys) >= OPEN_ARCHIVES else 0
        else:
            self.keys.remove(key)
        self.keys.append(key)
        job = Unpack(
            key=key,
            container=index.container,
            opens=opens,
            closes=closes,
            offset=member.offset,
            stored=member.stored,
            crc=member.crc,
            in_pieces=member.kind == Kind.STREAMED_SPARSE,
            memory=LEAST_MEMORY + OPEN_ARCHIVES * STREAM_MEMORY,
            seconds=seconds_limit(os.fstat(archive)),
        )
        return job, fds

    def _asked(self, job: Unpack, fds: list[int]) -> Outcome:
        """Return the answer to a job; BadMemberError if the process ended or hung."""
        channel = self._process.channel
        try:
            socket.send_fds(channel, [msgspec.msgpack.encode(job)], fds)
            message = channel.recv(DATAGRAM_BYTES)
            if message:
                answer: Outcome = msgspec.msgpack.decode(message, type=Outcome)
                return answer
        except TimeoutError:
            text = f"nothing of it could be unpacked for {STALLED_SECONDS:.0f} s"
            raise BadMemberError(text) from None
        except (BrokenPipeError, ConnectionResetError):
            pass
        raise BadMemberError(f"the process that unpacked it {ended(self._process.status())}")


class StreamUnpackers:
    """The processes of the archives that share a budget. They start when they are needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Unpacker] = []
        self._users = 0

    def enter(self) -> int:
        """Count one more archive, and return its key."""
        with self._lock:
            self._users += 1
            return next(_keys)

    def leave(self) -> None:
        """Count one archive less; end the processes after the last."""
        with self._lock:
            self._users -= 1
            idle, self._idle = self._idle, self._idle if self._users else []
        if not self._users:
            for unpacker in idle:
                unpacker.end()

    def unpack(self, key: int, index: ArchiveIndex, member: Member, file: int) -> None:
        """Write a member of the archive with this key to `file`.

        Raises OSError: EIO (BadMemberError) if it is damaged, ESTALE if the archive changed.
        """
        unpacker = self._take(key)
        healthy = False
        try:
            unpacker.unpack(key, index, member, file)
            healthy = True
        finally:
            self._put(unpacker, healthy=healthy)

    def _take(self, key: int) -> _Unpacker:
        """Return an idle process, one that has the archive open if there is one, or a new one."""
        with self._lock:
            for unpacker in self._idle:
                if key in unpacker.keys:
                    self._idle.remove(unpacker)
                    return unpacker
            if self._idle:
                return self._idle.pop()
        return _Unpacker()

    def _put(self, unpacker: _Unpacker, *, healthy: bool) -> None:
        """Keep a process for the next member; end it after an error, whatever its state."""
        with self._lock:
            if healthy and self._users:
                self._idle.append(unpacker)
                return
        unpacker.end()


def _pieces(index: ArchiveIndex, member: Member) -> bytes:
    """Return the pieces of a sparse member, as `PIECE` records."""
    pieces, logical = bytearray(), 0
    for run in index.stream_runs(member.node):
        if run.offset is not None:
            pieces += PIECE.pack(logical, run.offset, run.length)
        logical += run.length
    return bytes(pieces)


def _in_memory(data: bytes, stack: contextlib.ExitStack) -> int:
    """Return a memfd with some bytes, which `stack` closes."""
    fd = os.memfd_create("zcfuse-stream", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    write_all(fd, data)
    return fd
