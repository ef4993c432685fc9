"""Indexes archives in a process with limits, so that no archive can end the caller.

Within `indexing_process()` one process serves several archives; outside, each archive gets a new
process. Any thread may call this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

import msgspec

from zcfuse.tree.archive._compression import MAGIC_BYTES, compression_of
from zcfuse.tree.archive._errors import ArchiveError, NotAnArchiveError
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._limits import (
    MIB,
    STALLED_SECONDS,
    memory_limit,
    seconds_limit,
)
from zcfuse.tree.archive._messages import (
    DATAGRAM_BYTES,
    Answer,
    Done,
    Job,
    NoMemory,
    Refused,
    Report,
    Unreadable,
)
from zcfuse.tree.archive._parse import Progress
from zcfuse.tree.archive._process import Process, ended
from zcfuse.tree.archive._reader import read_at

_MODULE: Final = "zcfuse.tree.archive._worker"
_NO_HONEST_ONE: Final = "which no honest archive of its size needs"


def _started() -> Process:
    return Process(_MODULE, STALLED_SECONDS)


class _Holder:
    """Holds the worker of an `indexing_process()` block, which a bad archive may have ended."""

    def __init__(self) -> None:
        self.process: Process | None = _started()

    @contextlib.contextmanager
    def process_for_one(self) -> Iterator[Process]:
        """Lend the process; it ends if the block raises."""
        process, self.process = self.process or _started(), None
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        self.process = process


_holder: Final[ContextVar[_Holder | None]] = ContextVar("_holder", default=None)


@contextlib.contextmanager
def indexing_process() -> Iterator[None]:
    """Use one process for all archives indexed in this block."""
    holder = _Holder()
    token = _holder.set(holder)
    try:
        yield
    finally:
        _holder.reset(token)
        if holder.process is not None:
            holder.process.kill()


def parsed(
    path: bytes, fd: int, identity: ArchiveIdentity, progress: Progress, *, salvage: bool
) -> tuple[dict[str, bytes], bool]:
    """Return the sections of the index of the archive `fd`, and whether it is complete.

    `progress` runs in this thread; an exception from it ends the process. Raises ArchiveError,
    OSError.
    """
    holder = _holder.get()
    if holder is None:
        with indexing_process():
            return parsed(path, fd, identity, progress, salvage=salvage)
    status = os.fstat(fd)
    compressed = compression_of(read_at(fd, MAGIC_BYTES, 0)) is not None
    memory = memory_limit(status, compressed=compressed)
    job = Job(path, identity.mtime_ns, salvage, memory, seconds_limit(status))
    with contextlib.ExitStack() as stack:
        sections = os.memfd_create("zcfuse-index", os.MFD_CLOEXEC)
        stack.callback(os.close, sections)
        with holder.process_for_one() as process:
            answer = _asked(process, job, (fd, sections), progress)
            if isinstance(answer, NoMemory):
                # The process is out of memory.
                needed = f"more than {job.memory // MIB} MiB of memory"
                raise ArchiveError(path, f"indexing it takes {needed}, {_NO_HONEST_ONE}")
        return _result(path, answer, sections)


def _asked(process: Process, job: Job, fds: tuple[int, int], progress: Progress) -> Answer:
    """Return the last answer to a job; ArchiveError if the process ended or hung."""
    try:
        socket.send_fds(process.channel, [msgspec.msgpack.encode(job)], fds)
        while message := process.channel.recv(DATAGRAM_BYTES):
            answer: Answer = msgspec.msgpack.decode(message, type=Answer)
            if not isinstance(answer, Report):
                return answer
            progress(answer.done, answer.total)
    except TimeoutError:
        reason = f"nothing of it could be read for {STALLED_SECONDS:.0f} s"
        raise ArchiveError(job.path, reason) from None
    except (BrokenPipeError, ConnectionResetError):
        pass
    raise ArchiveError(job.path, _ended(process.status(), job))


def _ended(status: int, job: Job) -> str:
    if status == -signal.SIGXCPU:
        needed = f"more than {job.seconds} s of processor time"
        return f"indexing it takes {needed}, {_NO_HONEST_ONE}"
    return f"the process that indexed it {ended(status)}"


def _result(path: bytes, answer: Answer, sections: int) -> tuple[dict[str, bytes], bool]:
    if isinstance(answer, Done):
        found, offset = {}, 0
        for name, size in answer.sizes.items():
            found[name] = read_at(sections, size, offset)
            offset += size
        return found, answer.complete
    if isinstance(answer, Unreadable):
        raise OSError(answer.number, answer.text, os.fsdecode(path))
    assert isinstance(answer, Refused)
    if answer.no_archive:
        raise NotAnArchiveError(path, answer.reason, compressed=answer.compressed)
    raise ArchiveError(path, answer.reason, salvageable=answer.salvageable)
