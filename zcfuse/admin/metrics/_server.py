"""Serves metrics over HTTP to a scraper on the same machine.

A separate thread accepts connections and others answer, so neither the trio loop nor the data path
waits for a scraper. The trio loop only makes the status document, at its next turn. Requests have a
limit in time and in number. Loopback does not keep other users of the machine out. They see counts
and the names of source and mount point, but no name of a file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import trio
from prometheus_client import CollectorRegistry, make_wsgi_app

from zcfuse.admin.metrics._collector import StatusCollector
from zcfuse.admin.status import StatusDocument
from zcfuse.linux import MountError
from zcfuse.options import parse_listen

log = logging.getLogger(__name__)

# From accept(2) to the last byte of the answer; a scraper waits for ten seconds.
_REQUEST_S: Final = 3.0
# Seconds that the trio loop may take for its turn.
_STATUS_S: Final = 2.0
_END_S: Final = 2.0
_MOST_REQUESTS: Final = 4

ReadStatus = Callable[[], StatusDocument]
_Request = socket.socket | tuple[bytes, socket.socket]  # as in socketserver


class _Handler(WSGIRequestHandler):
    """Answers one request within a bounded time, even if the client sends slowly."""

    def setup(self) -> None:
        super().setup()
        self._deadline = threading.Timer(_REQUEST_S, _shut, (self.connection,))
        self._deadline.daemon = True
        self._deadline.start()

    def finish(self) -> None:
        self._deadline.cancel()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Answers each request in a thread, a few at a time, and hangs up on further clients."""

    daemon_threads = True
    block_on_close = False
    timeout = 1.0  # for accept(2), if the connection that select(2) saw is gone again

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.BoundedSemaphore(_MOST_REQUESTS)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask a name server for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: _Request, client_address: object) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        log.info("a request for metrics was not answered", exc_info=True)


class MetricsServer:
    """Listens from the start, and answers from `start` to `close`.

    Parameters:
        listen: the address, as `parse_listen` reads it.

    Raises:
        MountError: the port is unavailable.
    """

    def __init__(self, listen: str) -> None:
        host, port = parse_listen(listen)
        try:
            self._server = _Server(host, port)
        except OSError as error:
            raise MountError(
                f"--metrics-listen {listen}: {error.strerror}: choose another port, or 0 for any"
                " free one"
            ) from error
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The address of the server: ``127.0.0.1:9464``."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self, read: ReadStatus) -> None:
        """Answer from now on. `read` runs in the trio loop of the caller."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(_in_trio(read, trio.lowlevel.current_trio_token())))
        self._server.set_app(_unavailable_without(make_wsgi_app(registry)))
        self._thread = threading.Thread(target=self._run, name="zcfuse-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Requests in progress have a moment to finish."""
        os.close(self._waker)
        if self._thread is not None:
            self._thread.join(_END_S)
        self._server.server_close()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._server.fileno(), self._wake], [], [])
            if self._wake in ready:
                return
            self._server.handle_request()


def _in_trio(read: ReadStatus, token: trio.lowlevel.TrioToken) -> ReadStatus:
    """Return a function that calls `read` in the trio loop and waits for it, bounded."""

    def ask() -> StatusDocument:
        answer: queue.SimpleQueue[StatusDocument | Exception] = queue.SimpleQueue()

        def put() -> None:
            try:
                answer.put(read())
            except Exception as error:
                answer.put(error)

        token.run_sync_soon(put)
        found = answer.get(timeout=_STATUS_S)
        if isinstance(found, Exception):
            raise found
        return found

    return ask


def _unavailable_without(app: WSGIApplication) -> WSGIApplication:
    """Return a WSGI application that answers 503 if the daemon is too busy."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return list(app(environ, start_response))
        except (queue.Empty, trio.RunFinishedError):
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"the daemon is busy or ending\n"]

    return answer


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
