"""A client of the mount, in a child process of the daemon, that tests whether the mount answers.

It forks, so it must start before trio or any thread exists, and it imports neither. It is a
separate process, because a daemon that waits for itself could not even be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn


class Witness:
    """A client of the mount. Its constructor forks: before threads, an event loop and the mount.

    It ends when this process does.
    """

    def __init__(self, mountpoint: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self._socket.close()
            _bear_witness(theirs, mountpoint)
        theirs.close()
        self._socket.setblocking(False)
        self._asked = False

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with an answer."""
        return self._socket.fileno()

    def ask(self) -> None:
        """Have the witness ask the mount, unless an earlier question is still open."""
        if not self._asked:
            with contextlib.suppress(OSError):
                self._socket.send(b"?")
            self._asked = True

    def hear(self) -> None:
        """Take the answer. A killed witness counts as one, as it says nothing about the mount."""
        with contextlib.suppress(OSError):
            self._socket.recv(1)
        self._asked = False


def _bear_witness(channel: socket.socket, mountpoint: str) -> NoReturn:
    # Keep the parent's code from running here: let no exception out, flush no buffer twice.
    with contextlib.suppress(BaseException):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the signal may go to the whole service
        os.chdir("/")
        while channel.recv(1):
            with contextlib.suppress(OSError):
                # This always reaches the daemon; attributes might come from the kernel's cache.
                os.statvfs(mountpoint)
            channel.send(b"!")
    os._exit(0)
