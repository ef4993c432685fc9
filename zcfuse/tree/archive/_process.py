"""A child process that answers messages on a socket, apart from the mount that it serves."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Final

_END_S: Final = 5.0
_COMMAND: Final = "from {} import main; main({})"


class Process:
    """A running child. Owns its end of the socket, and the process."""

    def __init__(self, module: str, timeout: float) -> None:
        """Start `main(fd)` of a module; a receive fails after `timeout` seconds of silence."""
        # SEQPACKET keeps each message in one piece.
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(timeout)
        with theirs:
            # -P: the current directory must not provide modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND.format(module, theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def status(self) -> int:
        """Wait for a process that ends by itself; return its `Popen.returncode`.

        One that has closed its socket and does not end is killed after some seconds.
        """
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Kill the process."""
        self.channel.close()
        self._process.kill()
        self._process.wait()


def ended(status: int) -> str:
    """Describe the end of a process with this `Popen.returncode`."""
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
