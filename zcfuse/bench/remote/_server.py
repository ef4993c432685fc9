"""A bucket on loopback that is faster than its readers: nginx sends objects, Python lists keys.

It has what anonymous readers of S3 use: GET and HEAD of objects, with ranges and ETags, and
listings. nginx writes the length of each answer's body to a file, so that fetched bytes are counted
where they are sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

from zcfuse.bench._sources import SourceError

NAME: Final = "bucket"
LARGE: Final = "large"
SLOW: Final = "slow"
SLOW_BYTES_PER_S: Final = 8 << 20
"""What the server sends over each connection of the object SLOW."""

RANDOM: Final = "random"
MANY: Final = "many"
_SO_MAX_PACING_RATE: Final = 47  # asm-generic/socket.h
_START_S: Final = 20.0
_MOST_KEYS: Final = 1000
_CHUNK: Final = 1 << 20
_NGINX: Final = """
user {user};
worker_processes 2;
daemon off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    log_format lengths $body_bytes_sent;
    access_log off;
    sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        error_page 418 = @list;
        location / {{
            root .;
            if ($request_uri ~ "^/bucket/?($|[?])") {{ return 418; }}
            access_log lengths lengths;
        }}
        error_page 419 = @slow;
        location = /bucket/{slow} {{
            root .;
            if ($request_method = GET) {{ return 419; }}
        }}
        location @slow {{ proxy_pass http://127.0.0.1:{lister}; proxy_buffering off; }}
        location @list {{ proxy_pass http://127.0.0.1:{lister}; }}
    }}
}}
"""


class Bucket:
    """A bucket that is served; `small` are the keys of small objects."""

    def __init__(self, base: str, port: int, small: Sequence[str], keys: int) -> None:
        self.base = base
        self.endpoint = f"http://127.0.0.1:{port}"
        self.small = small
        self.keys = keys

    def path(self, key: str) -> str:
        """Return the local file of an object."""
        return os.path.join(self.base, NAME, key)

    def sent(self) -> int:
        """Return the bytes of objects that the server has sent so far."""
        with open(os.path.join(self.base, "lengths")) as lengths:
            return sum(map(int, lengths))


@contextlib.contextmanager
def serving(base: str, size: int, small: int, keys: int) -> Iterator[Bucket]:
    """Fill and serve a bucket in an empty directory.

    Parameters:
        base: the directory.
        size: bytes of each of the three large objects.
        small: the number of small objects.
        keys: the number of keys below MANY, which can only be listed.

    Raises:
        SourceError: nginx is missing or does not start.
    """
    names = [f"small-{number:03}" for number in range(small)]
    os.mkdir(os.path.join(base, NAME))
    for name, length in (
        (LARGE, size),
        (SLOW, size),
        (RANDOM, size),
        *((name, 4096) for name in names),
    ):
        with open(os.path.join(base, NAME, name), "wb") as file:
            for at in range(0, length, _CHUNK):
                file.write(os.urandom(min(_CHUNK, length - at)))
    lister = _lister(os.path.join(base, NAME), [f"{MANY}/key-{n:07}" for n in range(keys)])
    port = _free_port()
    user = "root" if os.geteuid() == 0 else "nobody"
    text = _NGINX.format(
        user=user,
        port=port,
        lister=lister.server_address[1],
        slow=SLOW,
    )
    configuration = os.path.join(base, "nginx.conf")
    with open(configuration, "w") as file:
        file.write(text)
    command = ["nginx", "-p", base, "-c", configuration, "-e", os.path.join(base, "error.log")]
    try:
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    except OSError as error:
        lister.server_close()
        raise SourceError(f"nginx: {error.strerror}: install it to serve the bucket") from error
    threading.Thread(target=lister.serve_forever, daemon=True).start()
    try:
        _wait_for(port, server)
        yield Bucket(base, port, names, keys)
    finally:
        server.terminate()
        server.wait()
        lister.shutdown()
        lister.server_close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.01)
    raise SourceError("nginx did not start")


def _lister(directory: str, keys: Sequence[str]) -> ThreadingHTTPServer:
    """Return a server of listings. An object's ETag is the one that nginx sends."""
    objects = sorted([*os.listdir(directory), *keys])

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """Write nothing: a client that ends early closes its connections."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Write nothing."""

        def do_HEAD(self) -> None:
            """Say that the bucket is there."""
            self._reply(b"")

        def do_GET(self) -> None:
            """List keys, or send a range of SLOW."""
            if urlsplit(self.path).path == f"/{NAME}/{SLOW}":
                self._send_slowly(os.path.join(directory, SLOW))
                return
            asked = {name: value[0] for name, value in parse_qs(urlsplit(self.path).query).items()}
            self._reply(_listing(directory, objects, asked).encode())

        def _send_slowly(self, path: str) -> None:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                self.send_response(206)
                self.send_header("ETag", _tag(status.st_size, status.st_mtime))
                self.send_header("Content-Range", f"bytes {first}-{last}/{status.st_size}")
                self.send_header("Content-Length", str(last + 1 - first))
                self.end_headers()
                # The kernel delays the packets.
                option = self.connection, socket.SOL_SOCKET, _SO_MAX_PACING_RATE
                socket.socket.setsockopt(*option, SLOW_BYTES_PER_S)
                self.connection.sendfile(file, first, last + 1 - first)

        def _reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Server(("127.0.0.1", 0), Handler)


def _listing(directory: str, objects: Sequence[str], asked: dict[str, str]) -> str:
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    most = min(int(asked.get("max-keys", _MOST_KEYS)), _MOST_KEYS)
    after = max(asked.get(name, "") for name in ("marker", "start-after", "continuation-token"))
    found: list[str] = []
    last, at = "", bisect_right(objects, after)
    while at < len(objects) and len(found) < most:
        key = objects[at]
        at += 1
        if not key.startswith(prefix):
            continue
        head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
        last = key
        if cut:
            common = f"{prefix}{head}{cut}"
            found.append(f"<CommonPrefixes><Prefix>{common}</Prefix></CommonPrefixes>")
            last = f"{common}\x7f"
            at = bisect_right(objects, last)
        else:
            found.append(_object(directory, key))
    more = at < len(objects) and len(found) == most
    following = ""
    if more:
        following = f"<NextMarker>{last}</NextMarker>"
        following += f"<NextContinuationToken>{last}</NextContinuationToken>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{NAME}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(found)}</KeyCount>"
        f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
        f"{following}{''.join(found)}</ListBucketResult>"
    )


def _object(directory: str, key: str) -> str:
    size, mtime = 1, 0.0
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(os.path.join(directory, key))
        size, mtime = status.st_size, status.st_mtime
    tag = _tag(size, mtime).replace('"', "&quot;")
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(mtime))
    return (
        f"<Contents><Key>{key}</Key><LastModified>{when}</LastModified>"
        f"<ETag>{tag}</ETag><Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _tag(size: int, mtime: float) -> str:
    """Return the ETag that nginx sends of a file."""
    return f'"{int(mtime):x}-{size:x}"'
