"""Servers as children that listen on loopback, ready before a test continues."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Final

from tests.support import eventually

START_DEADLINE_S: Final = 20.0
END_DEADLINE_S: Final = 10.0


def free_port() -> int:
    """A free loopback TCP port, for servers that cannot pick one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers_on(port: int) -> Callable[[], bool]:
    """Whether a server accepts connections on a loopback port."""

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return answers


@contextlib.contextmanager
def running(
    argv: list[str], *, log: str, ready: Callable[[], bool], stop: int = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a new process group, wait until it is `ready`, and end it after the block.

    Raises:
        AssertionError: it ended, or was late; the message has its output.
    """
    with open(log, "ab") as file:
        server = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        _wait_until(ready, server, log)
        yield server
    finally:
        _end(server, stop)


def _wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes], log: str) -> None:
    def is_ready() -> bool:
        wrote = f"{server.args!r} wrote:\n{_text(log)}"
        assert server.poll() is None, f"ended with {server.returncode}: {wrote}"
        return ready()

    assert eventually(is_ready, START_DEADLINE_S), f"not ready: {_text(log)}"


def _end(server: subprocess.Popen[bytes], stop: int) -> None:
    """Ask it to end, then kill its whole group, so that no worker keeps the mount busy."""
    server.send_signal(stop)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(END_DEADLINE_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(END_DEADLINE_S)


def _text(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()
