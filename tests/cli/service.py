"""A service manager for tests: a notification socket, and the journal's end of a log."""

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.support._user import CHECKOUT

DEADLINE_S = 20.0


class Manager:
    """Messages from a service; `messages` holds all so far, each a mapping of names to values."""

    def __init__(self, address: str) -> None:
        self.messages: list[dict[str, str]] = []
        self.environment = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def next(self, seconds: float = DEADLINE_S) -> dict[str, str] | None:
        """Return the next message, or None if none arrives within this many seconds."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return None
        lines = self._socket.recv(1 << 16).decode().split("\n")
        message = dict(line.split("=", 1) for line in lines)
        self.messages.append(message)
        return message

    def until(self, name: str) -> dict[str, str]:
        """Return the next message with this name."""
        deadline = time.monotonic() + DEADLINE_S
        while (message := self.next(max(0.0, deadline - time.monotonic()))) is not None:
            if name in message:
                return message
        raise AssertionError(f"no {name}, but {self.messages}")

    def silent_for(self, seconds: float, name: str) -> bool:
        """Whether no message with this name arrives for this long."""
        deadline = time.monotonic() + seconds
        while (message := self.next(max(0.0, deadline - time.monotonic()))) is not None:
            if name in message:
                return False
        return True


@contextlib.contextmanager
def manager(address: str) -> Iterator[Manager]:
    """A manager that listens at a path or an abstract name."""
    listening = Manager(address)
    try:
        yield listening
    finally:
        listening.close()


class Journal:
    """The stream that systemd gives a service as its standard error."""

    def __init__(self) -> None:
        self.socket, self._ours = socket.socketpair()
        status = os.fstat(self.socket.fileno())
        self.environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def run(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``zcfuse`` with this as its standard error."""
        return self.python("-m", "zcfuse", *arguments, **environment)

    def python(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start Python with this as its standard error."""
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.socket,
            cwd=CHECKOUT,
            env={**os.environ, **self.environment, **environment},
        )

    def lines(self) -> list[str]:
        """Return everything written, once all writers are gone."""
        self.socket.close()
        self._ours.settimeout(DEADLINE_S)
        with self._ours:
            written = b"".join(iter(lambda: self._ours.recv(1 << 16), b""))
        return written.decode().splitlines()
