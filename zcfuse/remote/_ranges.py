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
from typing import Final
from urllib.parse import urlsplit

from zcfuse.remote._cache import PIECE_BYTES
from zcfuse.remote._connections import Connections, Place, UnreachedError, left

# The most that is taken from a connection at a time; more would not stay in a processor's cache.
_BUFFER_BYTES: Final = 4 * PIECE_BYTES
_SERVER_ERRORS: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, *(one for one in HTTPStatus if one >= 500)}
) - {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}


class AnswerError(Exception):
    """The server answered something unusable; a further attempt may help."""


class _Buffer(threading.local):
    """A buffer for each thread."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_BUFFER_BYTES))


class Ranges:
    """Asks over connections that stay open between requests.

    Parameters:
        connections: what lends them.
        silence: seconds without a byte before a server is given up.
        stores_encoded: whether a Content-Encoding is a fact of the stored bytes, as on S3; it is
            one of the answer otherwise.
    """

    def __init__(
        self, connections: Connections, *, silence: float = 10.0, stores_encoded: bool = False
    ) -> None:
        self._connections = connections
        self._silence = silence
        self._stores_encoded = stores_encoded
        self._buffer = _Buffer()

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
            AnswerError: the server is busy or silent, or the answer ends early.
            OSError: of the connection; TimeoutError after the deadline.
        """
        asked = {
            **headers,
            "Accept-Encoding": "identity",
            "Range": f"bytes={start}-{start + length - 1}",
        }
        try:
            place, connection, stream, answer = self._answered(url, asked, deadline)
        except UnreachedError as error:
            return str(error)
        except ConnectionError:
            raise  # one kind is an HTTPException too
        except http.client.HTTPException:
            return "malformed answer"
        with contextlib.ExitStack() as failing:
            failing.callback(answer.close)
            failing.callback(connection.close)
            reason = self._unusable(answer)
            if reason:
                return reason
            check(dict(answer.headers))
            _check_range(answer, start, length)
            self._receive(stream, answer, length, deadline, keep)
            if not answer.will_close:
                answer.close()
                failing.pop_all()
                self._connections.keep(place, connection)
        return ""

    def _answered(
        self, url: str, headers: Mapping[str, str], deadline: float
    ) -> tuple[Place, http.client.HTTPConnection, socket.socket, http.client.HTTPResponse]:
        """Send a request; return the connection, its socket and the head of the answer.

        The connection has given up the socket if the server closes it after the answer.
        """
        parts = urlsplit(url)
        place = parts.scheme, parts.netloc
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        while True:
            connection, is_used = self._connections.take(parts, deadline)
            stream: socket.socket = connection.sock
            try:
                # A used connection may be dead without a word: the rest is for another one.
                seconds = left(deadline) / 2 if is_used else left(deadline)
                stream.settimeout(min(self._silence, seconds))
                connection.request("GET", target, headers=dict(headers))
                return place, connection, stream, connection.getresponse()
            except (ConnectionError, TimeoutError, ssl.SSLEOFError) as error:
                connection.close()
                if is_used:
                    self._connections.drop(place)
                elif isinstance(error, TimeoutError):
                    raise _silent(deadline) from None
                else:
                    raise
            except BaseException:
                connection.close()
                raise

    def _unusable(self, answer: http.client.HTTPResponse) -> str:
        """Return why the driver had better ask, "" if the answer is a range.

        Raises AnswerError if the same request may get another answer later.
        """
        if answer.status in _SERVER_ERRORS:
            raise AnswerError(f"status {answer.status}")
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            return f"status {answer.status}"
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity" and not self._stores_encoded:
            return "encoded answer"
        return "answer of unknown length" if answer.length is None else ""

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
            view = self._buffer.view[: min(length - came, _BUFFER_BYTES)]
            least = min(length - came, PIECE_BYTES - came % PIECE_BYTES) if can_wait else 1
            stream.settimeout(min(self._silence, left(deadline)))
            try:
                # The first part is in the buffer of the answer's head, in whole or not.
                count = _taken(stream, view, least) if came else answer.fp.readinto1(view)
            except (TimeoutError, BlockingIOError):
                raise _silent(deadline) from None
            if not count:
                raise AnswerError(f"{came} bytes came instead of {length}")
            came += count
            keep(view[:count])
        if can_wait:
            _wait_for(stream, 1)


def _silent(deadline: float) -> Exception:
    """Return the error of a server that sent nothing for a while."""
    if time.monotonic() < deadline:
        return AnswerError("the server sent nothing for too long")
    return TimeoutError()


def _taken(stream: socket.socket, view: memoryview, least: int) -> int:
    """Take `least` bytes or more; after the socket's time-out take those that are there."""
    if least == 1:
        return stream.recv_into(view)
    _wait_for(stream, least)
    try:
        return stream.recv_into(view)
    except TimeoutError:
        _wait_for(stream, 1)
        stream.settimeout(0)
        return stream.recv_into(view)


def _wait_for(stream: socket.socket, size: int) -> None:
    """Have a connection count as readable once `size` bytes are there, or its end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def _check_range(answer: http.client.HTTPResponse, start: int, length: int) -> None:
    said = answer.headers.get("Content-Range", "")
    if not said.startswith(f"bytes {start}-"):
        raise AnswerError(f"status {answer.status}, Content-Range {said!r}")
    if answer.length != length:
        raise AnswerError(f"{answer.length} bytes are to come instead of {length}")
