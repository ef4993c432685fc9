"""Informs the service manager: readiness, state, watchdog (sd_notify(3)).

Each message is one datagram to the socket that ``NOTIFY_SOCKET`` names. Without that variable no
service manager waits, and every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
from typing import Final

log = logging.getLogger(__name__)

# The manager reads at once. A slow manager must not block the event loop for long.
_SEND_TIMEOUT_S: Final = 1.0


class ServiceManager:
    """The service manager that started this process, if any.

    Parameters:
        address: the notification socket: a path, or ``@`` and an abstract name; "" without one.
        watchdog: the longest pause between two `alive`, in seconds; None without a watchdog.
    """

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._stopping = False
        self.watchdog: Final = watchdog

    @classmethod
    def of_environment(cls) -> ServiceManager:
        """Read the environment's variables and remove them, so that children do not see them."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        process = os.environ.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return cls()
        if process not in ("", str(os.getpid())) or not microseconds.isdecimal():
            return cls(address)
        return cls(address, int(microseconds) / 1e6 or None)

    @staticmethod
    def extend_start(seconds: int) -> None:
        """Ask for `seconds` more for the start; this works before a `ServiceManager` exists."""
        address = os.environ.get("NOTIFY_SOCKET", "")
        if address.startswith(("/", "@")):
            ServiceManager(address)._send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000}")

    def ready(self, status: str) -> None:
        """Report that the service is up, with its state in one line."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """Report the state of the service in one line."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Ping the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self, why: str) -> None:
        """Report that the service ends. Further calls do nothing."""
        if not self._stopping:
            self._stopping = True
            self._send("STOPPING=1", f"STATUS={why}")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        lines = [os.fsencode(line).replace(b"\n", b" ") for line in assignments]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_SEND_TIMEOUT_S)
                channel.sendto(b"\n".join(lines), self._address)
        except OSError as error:
            log.warning("the service manager did not get %s: %s", assignments[0], error)
