"""Which directories change, by inotify(7): names in them, and files that a writer has closed."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from zcfuse.linux._syscalls import inotify_add_watch, inotify_init

_READ_BYTES: Final = 1 << 16

_ATTRIB: Final = 0x4
_CLOSE_WRITE: Final = 0x8
_MOVED: Final = 0xC0
_DELETE: Final = 0x200
_CHANGES: Final = _ATTRIB | _CLOSE_WRITE | _MOVED | _DELETE


class Inotify:
    """Reports changes in directories. It owns its descriptor; used by one thread."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE if the user has no instance left."""
        self.fd = -1
        self.fd = inotify_init()

    def watch(self, directory: bytes) -> None:
        """Report changes in a directory from now on; twice is once. Raises OSError."""
        inotify_add_watch(self.fd, directory, _CHANGES)

    def drain(self) -> None:
        """Take the events that wait, without waiting for any."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.fd, _READ_BYTES):
                pass

    def close(self) -> None:
        """Stop reporting; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
