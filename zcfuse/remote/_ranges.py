"""Requests for ranges of bytes over HTTP, on connections of a worker's own.

A driver of fsspec handles each packet of an answer in its event loop. Here a thread sleeps until a
whole piece has come, and takes it into one buffer. Any thread may call `Ranges`. An answer that is
not the range that was asked for is left to the driver, which knows redirects and errors.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from zcfuse.remote._cache import PIECE_BYTES

# The most that is taken from a connection at a time; more would not stay in a processor's cache.
_BUFFER_BYTES: Final = 4 * PIECE_BYTES
_MOST_IDLE: Final = 64
_SERVER_ERRORS: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, *(one for one in HTTPStatus if one >= 500)}
)


_Place: TypeAlias = tuple[str, str]  # scheme and address of a server


class AnswerError(Exception):
    """The server answered something unusable; a further attempt may help."""


class _Buffer(threading.local):
    """A buffer for each thread."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_BUFFER_BYTES))


class Ranges:
    """Asks over connections that stay open between requests."""

    def __init__(self) -> None:
        self.authorities: str | None = None
        """The file of certificates to trust, None: those of the system."""

        self._idle: list[tuple[_Place, http.client.HTTPConnection]] = []
        self._lock = threading.Lock()
        self._buffer = _Buffer()
        self._context: ssl.SSLContext | None = None

    def read(
        self,
        url: str,
        headers: Mapping[str, str],
        start: int,
        length: int,
        deadline: float,
        check: Callable[[Mapping[str, str]], None],
        keep: Callable[[memoryview], None],
    ) -> str:
        """Call `keep` with a range, in order, part by part; each part is valid during its call.

        Parameters:
            url: of ``http`` or ``https``, with a signature where the server wants one.
            headers: further ones of the request.
            start: where the range begins, in bytes.
            length: bytes of the range.
            deadline: of the whole answer, as time.monotonic() counts.
            check: gets the headers of the answer before `keep` gets bytes; may raise.

        Returns:
            "", or why the answer is not used; then `keep` got nothing.

        Raises:
            AnswerError: the server is busy, or the answer ends early.
            OSError: of the connection.
        """
        asked = {
            **headers,
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{start + length - 1}",
        }
        try:
            place, connection, stream, answer = self._answered(url, asked, deadline)
        except ssl.SSLCertVerificationError:
            return "certificate not verified"
        with contextlib.ExitStack() as failing:
            failing.callback(answer.close)
            failing.callback(connection.close)
            reason = _unusable(answer)
            if reason:
                return reason
            check(dict(answer.headers))
            _check_range(answer, start, length)
            self._receive(stream, answer, length, deadline, keep)
            if not answer.will_close:
                answer.close()
                failing.pop_all()
                self._keep(place, connection)
        return ""

    def _answered(
        self, url: str, headers: Mapping[str, str], deadline: float
    ) -> tuple[_Place, http.client.HTTPConnection, socket.socket, http.client.HTTPResponse]:
        """Send a request; return the connection, its socket and the head of the answer.

        The connection has given up the socket if the server closes it after the answer.
        """
        parts = urlsplit(url)
        place = parts.scheme, parts.netloc
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        while True:
            connection, is_used = self._connection(place)
            try:
                connection.timeout = _left(deadline)
                if connection.sock is not None:
                    connection.sock.settimeout(connection.timeout)
                connection.request("GET", target, headers=dict(headers))
                stream: socket.socket = connection.sock
                return place, connection, stream, connection.getresponse()
            except BaseException as error:
                connection.close()
                # The server may close a connection that has been idle.
                if not (is_used and isinstance(error, ConnectionError)):
                    raise

    def _keep(self, place: _Place, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < _MOST_IDLE:
                self._idle.append((place, connection))
                return
        connection.close()

    def _connection(self, place: _Place) -> tuple[http.client.HTTPConnection, bool]:
        """Return the connection used last, or a new one; and whether it was used."""
        with self._lock:
            for at in reversed(range(len(self._idle))):
                if self._idle[at][0] == place:
                    return self._idle.pop(at)[1], True
            scheme, address = place
            if scheme == "http":
                return http.client.HTTPConnection(address), False
            if self._context is None:
                self._context = ssl.create_default_context(cafile=self.authorities)
            return http.client.HTTPSConnection(address, context=self._context), False

    def _receive(
        self,
        stream: socket.socket,
        answer: http.client.HTTPResponse,
        length: int,
        deadline: float,
        keep: Callable[[memoryview], None],
    ) -> None:
        """Take the body. The kernel wakes this thread once for each piece, not for each packet."""
        can_wait = not isinstance(stream, ssl.SSLSocket)
        came = 0
        while came < length:
            left = length - came
            stream.settimeout(_left(deadline))
            # The first part is in the buffer of the answer's head, in whole or not.
            if can_wait and came:
                _wait_for(stream, min(left, PIECE_BYTES - came % PIECE_BYTES))
            count = answer.fp.readinto1(self._buffer.view[: min(left, _BUFFER_BYTES)])
            if not count:
                raise AnswerError(f"{came} bytes came instead of {length}")
            came += count
            keep(self._buffer.view[:count])
        if can_wait:
            _wait_for(stream, 1)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline; raises TimeoutError after it."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _wait_for(stream: socket.socket, size: int) -> None:
    """Have a connection count as readable once `size` bytes are there, or its end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _unusable(answer: http.client.HTTPResponse) -> str:
    """Return why the driver had better ask, "" if the answer is a range.

    Raises AnswerError if the same request may get another answer later.
    """
    if answer.status in _SERVER_ERRORS:
        raise AnswerError(f"status {answer.status}")
    if answer.status != HTTPStatus.PARTIAL_CONTENT:
        return f"status {answer.status}"
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return "encoded answer"
    return "answer of unknown length" if answer.length is None else ""


def _check_range(answer: http.client.HTTPResponse, start: int, length: int) -> None:
    said = answer.headers.get("Content-Range", "")
    if not said.startswith(f"bytes {start}-"):
        raise AnswerError(f"status {answer.status}, Content-Range {said!r}")
    if answer.length != length:
        raise AnswerError(f"{answer.length} bytes are to come instead of {length}")
