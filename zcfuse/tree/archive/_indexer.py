"""Indexes archives in a process with limits, so that no archive can end the caller.

Within `indexing_process()` one process serves several archives; outside, each archive gets a new
process. Any thread may call this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

import msgspec

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
from zcfuse.tree.archive._reader import read_at

_COMMAND: Final = "from zcfuse.tree.archive._worker import main; main({})"
_NO_HONEST_ONE: Final = "which no honest archive of its size needs"


class _Process:
    """A running worker. Owns its end of the socket, and the process."""

    def __init__(self) -> None:
        # SEQPACKET keeps each message in one piece.
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(STALLED_SECONDS)
        with theirs:
            # -P: the current directory must not provide modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def status(self) -> int:
        """Wait for a process that ends by itself; return its `Popen.returncode`."""
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process."""
        self.channel.close()
        self._process.kill()
        self._process.wait()


class _Holder:
    """Holds the worker of an `indexing_process()` block, which a bad archive may have ended."""

    def __init__(self) -> None:
        self.process: _Process | None = _Process()

    @contextlib.contextmanager
    def process_for_one(self) -> Iterator[_Process]:
        """Lend the process; it ends if the block raises."""
        process, self.process = self.process or _Process(), None
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
    job = Job(path, identity.mtime_ns, salvage, memory_limit(status), seconds_limit(status))
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


def _asked(process: _Process, job: Job, fds: tuple[int, int], progress: Progress) -> Answer:
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
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
    return f"the process that indexed it {how}"


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
