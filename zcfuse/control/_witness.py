"""A client of the mount that the daemon brings along, so as to hear whether the mount answers.

It forks, so it must be made before trio or any thread exists; it imports neither. A process of its
own, because a daemon that waits for itself could not even be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn


class Witness:
    """A client of the mount, made by fork: before there are threads, an event loop or the mount.

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
        """Return the descriptor that is readable once an answer is there."""
        return self._socket.fileno()

    def ask(self) -> None:
        """Have the witness ask the mount, unless it still waits for an earlier answer."""
        if not self._asked:
            with contextlib.suppress(OSError):
                self._socket.send(b"?")
            self._asked = True

    def hear(self) -> None:
        """Take the answer; that the witness was killed is one, for it says nothing of the mount."""
        with contextlib.suppress(OSError):
            self._socket.recv(1)
        self._asked = False


def _bear_witness(channel: socket.socket, mountpoint: str) -> NoReturn:
    # Nothing of the parent's may run here: no exception leaves, no buffer is flushed twice.
    with contextlib.suppress(BaseException):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a whole service may be told to end
        os.chdir("/")
        while channel.recv(1):
            with contextlib.suppress(OSError):
                # Always asks the daemon; attributes might come from the kernel's cache.
                os.statvfs(mountpoint)
            channel.send(b"!")
    os._exit(0)
