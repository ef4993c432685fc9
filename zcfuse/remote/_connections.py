"""HTTP connections of a worker that stay open between requests.

Any thread may call `Connections`. A connection belongs to the thread that took it until that thread
keeps it again.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections import Counter
from typing import Final, TypeAlias
from urllib.parse import SplitResult

Place: TypeAlias = tuple[str, str]
"""Scheme and address of a server."""

_MOST_IDLE: Final = 64
# For all addresses of a server, the TLS handshake included; and for one of them.
_CONNECT_S: Final = 3.0
_ADDRESS_S: Final = 1.0


class UnreachedError(Exception):
    """No connection came about, and another way to make one may differ."""


class Connections:
    """Lends connections, and makes them.

    Parameters:
        idle: seconds for which an unused connection stays. Servers and the networks on the way
            forget older ones, the latter without a word.
    """

    def __init__(self, idle: float = 10.0) -> None:
        self.authorities: str | None = None
        """The file of certificates to trust, None: those of the system."""

        self._idle_s = idle
        self._idle: list[tuple[Place, http.client.HTTPConnection, float]] = []
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        # The kind of address that the last server answered at: networks may swallow one kind.
        self._family = socket.AF_UNSPEC

    def take(self, parts: SplitResult, deadline: float) -> tuple[http.client.HTTPConnection, bool]:
        """Return the open connection to a URL's server that was used last, or make one.

        Also return whether it was used. `deadline` is one of time.monotonic().

        Raises:
            UnreachedError: no address of the server answered in time, or the two found no way to
                encrypt.
            OSError: the server refused, or its name is unknown.
        """
        connection = self._used((parts.scheme, parts.netloc))
        if connection is not None:
            return connection, True
        is_plain = parts.scheme == "http"
        kind = http.client.HTTPConnection if is_plain else http.client.HTTPSConnection
        connection = kind(parts.netloc)
        try:
            connection.sock = self._opened(
                connection.host, connection.port, time.monotonic(), deadline, is_plain=is_plain
            )
        except ssl.SSLCertVerificationError:
            raise UnreachedError("certificate not verified") from None
        except ssl.SSLError:
            raise UnreachedError("no encryption") from None
        except TimeoutError:
            raise UnreachedError("no connection in time") from None
        return connection, False

    def keep(self, place: Place, connection: http.client.HTTPConnection) -> None:
        """Keep an open connection for another request."""
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append((place, connection, time.monotonic()))
                return
        connection.close()

    def drop(self, place: Place) -> None:
        """Close the unused connections to a server, which has forgotten one of them."""
        with self._lock:
            dropped = [one for one in self._idle if one[0] == place]
            self._idle = [one for one in self._idle if one[0] != place]
        for _, connection, _ in dropped:
            connection.close()

    def _used(self, place: Place) -> http.client.HTTPConnection | None:
        oldest = time.monotonic() - self._idle_s
        found = None
        with self._lock:
            old = [one for one in self._idle if one[2] < oldest]
            self._idle = [one for one in self._idle if one[2] >= oldest]
            for at in reversed(range(len(self._idle))):
                if self._idle[at][0] == place:
                    found = self._idle.pop(at)[1]
                    break
        for _, connection, _ in old:
            connection.close()
        return found

    def _opened(
        self, host: str, port: int, now: float, deadline: float, *, is_plain: bool
    ) -> socket.socket:
        until = min(deadline, now + _CONNECT_S)
        stream = self._reached(host, port, until)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_plain:
                return stream
            with self._lock:
                if self._context is None:
                    self._context = ssl.create_default_context(cafile=self.authorities)
            stream.settimeout(left(until))
            return self._context.wrap_socket(stream, server_hostname=host)
        except BaseException:
            stream.close()
            raise

    def _reached(self, host: str, port: int, until: float) -> socket.socket:
        """Connect to one of a server's addresses, to those of each kind in turn."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, address in self._addresses(host, port):
            try:
                stream = socket.socket(family, kind, protocol)
            except OSError as error:  # a kernel without IPv6
                failure = error
                continue
            try:
                stream.settimeout(min(_ADDRESS_S, left(until)))
                stream.connect(address)
            except OSError as error:
                stream.close()
                failure = error
            else:
                self._family = family
                return stream
        raise failure

    def _addresses(
        self, host: str, port: int
    ) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, tuple[object, ...]]]:
        seen: Counter[int] = Counter()
        ranked = []
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            rank = seen[family], family != self._family
            ranked.append((rank, (family, kind, protocol, address)))
            seen[family] += 1
        return [found for _, found in sorted(ranked, key=lambda one: one[0])]


def left(deadline: float) -> float:
    """Return the seconds until a deadline; raises TimeoutError after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
