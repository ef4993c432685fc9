"""Ranges of bytes over plain connections, in any portions."""

import contextlib
import errno
import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.remote.conftest import LARGE, Ask
from tests.remote.server import WebServer
from tests.support import skip_unless
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._connections import Connections
from zcfuse.remote._messages import Ensure, Ensured, Info, Look, Looked, Setup
from zcfuse.remote._ranges import AnswerError, Ranges

BODY = random.Random(3).randbytes(3 * PIECE_BYTES)
HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n"
) % (len(BODY) - 1, len(BODY), len(BODY))


@contextlib.contextmanager
def answering(
    *portions: bytes, requests: int = 1, pause: float = 0.01
) -> Iterator[tuple[str, list[int]]]:
    """Send portions to each request; yield the URL, and the ports of clients so far.

    A connection is closed after its first request, or silent after several.
    """
    accepted: list[int] = []
    silent: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (_, port) = listener.accept()
                accepted.append(port)
                silent.append(connection)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for _ in range(requests):
                    connection.recv(1 << 16)
                    for portion in portions:
                        connection.sendall(portion)
                        time.sleep(pause)
                if requests == 1:
                    silent.pop().close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in list(silent):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for connection in silent:
                connection.close()


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """Yield a port that answers nothing to those who connect."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.socket() as first,
        socket.socket() as second,
    ):
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def ranges_of(silence: float = 10.0, idle: float = 10.0) -> Ranges:
    """Ranges over new connections."""
    return Ranges(Connections(idle), silence=silence)


def read(ranges: Ranges, url: str, seconds: float = 10.0) -> bytes:
    """Return the range that is BODY."""
    came: list[bytes] = []
    deadline = time.monotonic() + seconds
    left_over = ranges.read(
        url, {}, 0, len(BODY), deadline, lambda _: None, lambda part: came.append(bytes(part))
    )
    assert left_over == ""
    return b"".join(came)


@pytest.mark.parametrize("with_head", [0, 1, 5000, 9000, PIECE_BYTES, PIECE_BYTES + 1, len(BODY)])
def test_bytes_come_in_whatever_portions_the_server_sends_them(with_head: int):
    with answering(HEAD + BODY[:with_head], BODY[with_head:]) as (url, _):
        assert read(ranges_of(), url) == BODY


def test_a_connection_that_the_server_closed_is_replaced():
    ranges = ranges_of()
    with answering(HEAD + BODY) as (url, accepted):
        assert [read(ranges, url) for _ in range(3)] == [BODY] * 3
        assert len(accepted) == 3


def test_an_open_connection_is_used_again_and_one_that_fell_silent_is_replaced():
    ranges = ranges_of(silence=3)
    with answering(HEAD + BODY, requests=2) as (url, accepted):
        assert [read(ranges, url, 60) for _ in range(2)] == [BODY] * 2
        assert len(accepted) == 1
        assert read(ranges, url, 60) == BODY
        assert len(accepted) == 2


def test_a_connection_that_was_not_used_for_long_is_not_used_again():
    ranges = ranges_of(idle=0)
    with answering(HEAD + BODY) as (url, accepted):
        assert [read(ranges, url) for _ in range(2)] == [BODY] * 2
        assert len(accepted) == 2


def test_a_kernel_without_a_kind_of_address_reaches_servers_that_have_others(
    monkeypatch: pytest.MonkeyPatch,
):
    real = socket.socket

    def made(family: int = -1, *rest: int, **keywords: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return real(family, *rest, **keywords)

    with answering(HEAD + BODY) as (url, _):
        port = urlsplit(url).port
        both = [
            (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
        monkeypatch.setattr(socket, "socket", made)
        assert read(ranges_of(), url, 60) == BODY


def test_a_server_that_sends_less_than_a_piece_at_a_time_is_slow_and_not_silent():
    portions = [BODY[at : at + 10_000] for at in range(0, 40_000, 10_000)]
    with answering(HEAD, *portions, BODY[40_000:], pause=1) as (url, _):
        assert read(ranges_of(silence=3), url, 60) == BODY


def test_a_server_that_is_silent_is_given_up_before_the_deadline():
    with (
        answering(HEAD + BODY[:-1], requests=2) as (url, _),
        pytest.raises(AnswerError, match="nothing"),
    ):
        read(ranges_of(silence=0.5), url, 60)


def test_an_address_that_swallows_packets_is_passed_over_or_leaves_the_range_to_the_driver(
    monkeypatch: pytest.MonkeyPatch,
):
    with swallowing() as silent, answering(HEAD + BODY) as (url, _):
        dead = url.replace(url.rpartition(":")[2], f"{silent}/x")
        reason = ranges_of().read(
            dead, {}, 0, len(BODY), time.monotonic() + 60, lambda _: None, lambda _: None
        )
        assert reason == "no connection in time"
        found = socket.getaddrinfo("127.0.0.1", silent, type=socket.SOCK_STREAM)
        found += socket.getaddrinfo(
            "127.0.0.1", url.rpartition(":")[2].removesuffix("/x"), type=socket.SOCK_STREAM
        )
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert read(ranges_of(), url, 60) == BODY


def test_an_answer_that_ends_early_is_an_error_and_one_that_stops_ends_with_the_deadline():
    with answering(HEAD + BODY[:-1]) as (url, _), pytest.raises(AnswerError):
        read(ranges_of(), url)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(TimeoutError),
    ):
        read(ranges_of(), f"http://127.0.0.1:{silent.getsockname()[1]}/x", 0.2)


def _reads(ask: Ask, web: WebServer, count: int) -> list[dict[str, int]]:
    looked = ask(Look(1, "", b"large", 20))
    assert isinstance(looked, Looked)
    info = looked.info
    assert info is not None
    key = key_of("server", info.path, info.version)
    found = []
    for at in range(0, count * PIECE_BYTES, PIECE_BYTES):
        done = ask(Ensure(2, key, info, at, PIECE_BYTES, True, 20))
        assert isinstance(done, Ensured)
        assert done.good == [(at, PIECE_BYTES)]
        found.append(done.by_driver)
    return found


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("nothing", None),
        ("options", "options of the driver"),
        ("a proxy", None),
        ("a user", "form of the address"),
        ("no ranges", "status 200"),
    ],
)
def test_the_driver_reads_what_a_plain_connection_does_not_get_and_the_answer_says_why(
    web: WebServer,
    workers: Callable[[Setup], Ask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
    reason: str | None,
):
    options = {"client_kwargs": {"trust_env": False}} if cause == "options" else {}
    url = web.url.replace("//", "//user:word@") if cause == "a user" else web.url
    web.knows_ranges = cause != "no ranges"
    if cause == "a proxy":
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    ask = workers(Setup(url, "server", options, str(tmp_path), "1000000000", "0", 1))
    assert _reads(ask, web, 1) == [{reason: 1} if reason else {}]


def test_after_three_ranges_that_only_the_driver_got_it_is_asked_first_for_five_minutes(
    web: WebServer,
):
    skip_unless("fsspec", "aiohttp")
    from zcfuse.remote._drivers import Driver

    web.knows_ranges = False
    now = 1000.0
    driver = Driver(web.url, {}, clock=lambda: now)
    info = driver.look(driver.root, b"large", 20)
    assert info is not None
    asked = []
    for at in range(7):
        now += {5: 299.0, 6: 2.0}.get(at, 0.0)
        before = web.requests["GET", "large"]
        reason = driver.read(info, at * PIECE_BYTES, PIECE_BYTES, 20, lambda _: None)
        asked.append((web.requests["GET", "large"] - before, reason))
    only_driver, both = (1, "status 200"), (2, "status 200")
    assert asked == [both] * 3 + [only_driver] * 3 + [both]


LARGE_OBJECT = Info(
    b"large", "d/large", False, len(LARGE), 0, f'{len(LARGE)} "{hashlib.md5(LARGE).hexdigest()}"'
)


def _reads_object(
    web: WebServer, clock: Callable[[], float] = time.monotonic
) -> Callable[[int], str]:
    """Return a function that reads a piece of "large"; it returns why the driver did."""
    skip_unless("fsspec", "s3fs")
    from zcfuse.remote._drivers import Driver

    endpoint = f"http://127.0.0.1:{web.port}"
    driver = Driver("s3://d", {"endpoint_url": endpoint, "key": "k", "secret": "s"}, clock)

    def reads(piece: int) -> str:
        came: list[bytes] = []
        start = piece * PIECE_BYTES
        reason = driver.read(
            LARGE_OBJECT, start, PIECE_BYTES, 60, lambda part: came.append(bytes(part))
        )
        assert b"".join(came) == LARGE[start : start + PIECE_BYTES]
        return reason

    return reads


def test_an_object_is_read_by_a_url_that_is_signed_by_sigv4(web: WebServer):
    assert _reads_object(web)(0) == ""
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in web.queries[-1]


def test_a_url_that_expired_is_signed_again_for_all_ranges_that_are_in_flight(web: WebServer):
    reads = _reads_object(web)
    assert reads(0) == ""
    web.fault, web.faulty, web.together = "refused", 3, threading.Barrier(3)
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(reads, range(1, 4))) == [""] * 3
    assert reads(4) == ""
    assert web.requests["GET", "large"] == 1 + 2 * 3 + 1


def test_a_url_is_signed_again_after_five_minutes(web: WebServer, monkeypatch: pytest.MonkeyPatch):
    from zcfuse.remote._direct import Direct

    now = 1000.0
    signed = 0
    sign = Direct._sign

    async def counted(direct: Direct, path: str) -> str:
        nonlocal signed
        signed += 1
        return await sign(direct, path)

    monkeypatch.setattr(Direct, "_sign", counted)
    reads = _reads_object(web, lambda: now)
    counts = []
    for seconds in (0.0, 299.0, 2.0, 0.0):
        now += seconds
        assert reads(len(counts)) == ""
        counts.append(signed)
    assert counts == [1, 1, 2, 2]


@pytest.mark.parametrize("fault", ["wrong tag", "wrong total"])
@pytest.mark.parametrize("by_driver", [False, True])
def test_another_version_from_a_server_that_ignores_if_match_is_refused(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, fault: str, by_driver: bool
):
    from zcfuse.remote._drivers import ChangedError

    if by_driver:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.port}")
    reads = _reads_object(web)
    assert reads(0) == ("a proxy" if by_driver else "")
    web.fault, web.faulty = fault, 1
    with pytest.raises(ChangedError):
        reads(1)


def test_a_proxy_of_the_environment_serves_no_host_that_is_excepted(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.port}")
    assert _reads_object(web)(0) == "a proxy"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert _reads_object(web)(0) == ""
