"""The process that indexes archives: takes jobs from a socket, one at a time, until it closes."""

from __future__ import annotations

import os
import resource
import signal
import socket

import msgspec

from zcfuse.tree.archive._errors import ArchiveError, NotAnArchiveError
from zcfuse.tree.archive._limits import limit_this_process
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
from zcfuse.tree.archive._parse import parse
from zcfuse.tree.archive._unpack import write_all


def main(fd: int) -> None:
    """Serve the socket `fd`."""
    # The parent decides about an interrupt from the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=fd) as channel:
        while True:
            message, fds, _, _ = socket.recv_fds(channel, DATAGRAM_BYTES, 2)
            if not message:
                return
            archive, sections = fds
            answer = _answer(channel, msgspec.msgpack.decode(message, type=Job), archive, sections)
            os.close(archive)
            os.close(sections)
            channel.send(msgspec.msgpack.encode(answer))


def _answer(channel: socket.socket, job: Job, archive: int, sections: int) -> Answer:
    def progress(done: int, total: int) -> None:
        channel.send(msgspec.msgpack.encode(Report(done, total)))

    try:
        limit_this_process(job.memory, job.seconds)
        found, complete = parse(job.path, archive, job.mtime_ns, progress, salvage=job.salvage)
        for data in found.values():
            write_all(sections, data)
        return Done({name: len(data) for name, data in found.items()}, complete)
    except ArchiveError as error:
        compressed = isinstance(error, NotAnArchiveError) and error.compressed
        no_archive = isinstance(error, NotAnArchiveError)
        return Refused(error.reason, no_archive, compressed, error.salvageable)
    except MemoryError:
        return NoMemory()
    except OSError as error:
        return Unreadable(error.errno or 0, error.strerror or str(error))
    except Exception as error:  # a parser met an unexpected value
        return Refused(f"it cannot be read ({error!r:.200})", False, False, False)
