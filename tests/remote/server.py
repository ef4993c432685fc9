"""A web server in the test's process: files by name, with ranges, ETags and faults."""

import contextlib
import hashlib
import re
import socket
import ssl
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import urlsplit

FAULTS: Final = ("none", "cut", "short", "long", "busy", "hung", "wrong range", "redirect", "slow")


class WebServer:
    """Serves ``files``, names to bytes. Owns its thread until `close`.

    GETs of objects of a bucket "d" are answered too, whatever their signature, and a client may
    take the server for a proxy to itself.

    `fault` is what GETs of a range do, `faulty` of them; then they are as they should be.
    `requests` counts by method and name; `ranges` has each range that was asked for, and `queries`
    what follows the names. Requests with the fault "refused" wait for each other at `together`.
    With `encryption` it speaks HTTPS.
    """

    def __init__(self, files: dict[str, bytes], encryption: ssl.SSLContext | None = None) -> None:
        self.files = files
        self.fault = "none"
        self.faulty = 0
        self.knows_ranges = True
        self.listed = True
        self.requests: Counter[tuple[str, str]] = Counter()
        self.ranges: list[tuple[str, int, int]] = []
        self.headers: list[dict[str, str]] = []
        self.queries: list[str] = []
        self.together = threading.Barrier(1)
        self.released = threading.Event()
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            web = server

        self._http = _Server(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self._scheme = "http" if encryption is None else "https"
        if encryption is not None:
            # The thread of the connection shakes hands, so a client that waits stops no other.
            self._http.socket = encryption.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """The server."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The directory of the files."""
        return f"{self.endpoint}/d"

    @property
    def fetched(self) -> int:
        """Bytes of all the ranges that were asked for."""
        return sum(last + 1 - first for _, first, last in self.ranges)

    def take_fault(self) -> str:
        """The fault of one request, which is then used up."""
        with self._lock:
            if self.faulty <= 0:
                return "none"
            self.faulty -= 1
            return self.fault

    def close(self) -> None:
        """End the server; requests that hang end too."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Be silent about a client that was killed."""


class _Handler(BaseHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        web = self.web
        if web.released.is_set():
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        name = parts.path.removeprefix("/d").strip("/")
        web.requests[self.command, name] += 1
        web.headers.append(dict(self.headers))
        web.queries.append(parts.query)
        if not name and web.listed:
            self._reply(200, "".join(f'<a href="{n}">{n}</a>\n' for n in web.files).encode(), body)
            return
        data = web.files.get(name)
        if data is None:
            self._reply(404, b"", body)
            return
        tag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not web.knows_ranges:
            self._reply(200, data, body, tag)
            return
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        web.ranges.append((name, first, last))
        self._faulty(web.take_fault(), data, first, last, tag)

    def _faulty(self, fault: str, data: bytes, first: int, last: int, tag: dict[str, str]) -> None:
        part = data[first : last + 1]
        said = {**tag, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        if fault == "busy":
            self._reply(503, b"", True, {"Retry-After": "1"})
        elif fault == "redirect":
            self._reply(302, b"", True, {"Location": self.path})
        elif fault == "hung":
            self.web.released.wait(60)
            self.close_connection = True
        elif fault == "cut":
            self._head(206, len(part), said)
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
        elif fault == "slow":
            self._head(206, len(part), said)
            step = len(part) // 8 + 1
            for at in range(0, len(part), step):
                self.wfile.write(part[at : at + step])
                self.web.released.wait(0.05)
        elif fault == "wrong tag":
            self._reply(206, part, True, {**said, "ETag": '"another"'})
        elif fault == "wrong total":
            said["Content-Range"] = f"bytes {first}-{last}/{len(data) + 1}"
            self._reply(206, part, True, said)
        elif fault == "refused":
            self.web.together.wait(60)
            self._reply(403, b"", True)
        elif fault == "short":
            self._reply(206, part[:-1], True, said)
        elif fault == "long":
            self._reply(206, part + b"x", True, said)
        elif fault == "wrong range":
            said["Content-Range"] = f"bytes {first + 1}-{last + 1}/{len(data)}"
            self._reply(206, part, True, said)
        else:
            self._reply(206, part, True, said)

    def _reply(
        self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None
    ) -> None:
        html = {"Content-Type": "text/html"} if data.startswith(b"<a ") else {}
        self._head(status, len(data), {**html, **(headers or {})})
        if body:
            self.wfile.write(data)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
