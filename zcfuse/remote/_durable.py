"""Makes written data durable, by one fdatasync(2) for all threads that wait for the same file.

Each fdatasync(2) of a file waits for all its data, so threads that call it for themselves wait for
one another's data again and again. Any thread may call `make_durable`.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Final


class _File:
    """Rounds of one file, numbered from 1. `failed` is the last one that failed."""

    __slots__ = ("began", "ended", "error", "failed", "waiting")

    def __init__(self) -> None:
        self.began = self.ended = self.failed = self.waiting = 0
        self.error = 0


_changed: Final = threading.Condition()
_files: Final[dict[tuple[int, int], _File]] = {}


def make_durable(fd: int) -> None:
    """Return once the bytes written to a file before the call are durable.

    Raises OSError: of fdatasync(2), in each thread whose data may be lost.
    """
    status = os.fstat(fd)
    key = status.st_dev, status.st_ino
    with _changed:
        file = _files.setdefault(key, _File())
        file.waiting += 1
        try:
            wanted = file.began + 1
            while file.ended < wanted:
                if file.began > file.ended:
                    _changed.wait()
                else:
                    _run(file, fd)
            if file.failed >= wanted:
                raise OSError(file.error, os.strerror(file.error))
        finally:
            file.waiting -= 1
            if not file.waiting:
                del _files[key]


def _run(file: _File, fd: int) -> None:
    """Make a round; the caller holds the lock, which others may take meanwhile."""
    file.began += 1
    error = errno.EIO  # unless the call returns: others must not trust a round that was cut short
    _changed.release()
    try:
        os.fdatasync(fd)
        error = 0
    except OSError as failure:
        error = failure.errno or errno.EIO
    finally:
        _changed.acquire()
        file.ended = file.began
        if error:
            file.failed, file.error = file.ended, error
        _changed.notify_all()
