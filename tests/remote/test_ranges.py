"""Ranges of bytes over plain connections, in any portions."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.remote.conftest import Ask
from tests.remote.server import WebServer
from tests.support import skip_unless
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._messages import Ensure, Ensured, Look, Looked, Setup
from zcfuse.remote._ranges import AnswerError, Ranges

BODY = random.Random(3).randbytes(3 * PIECE_BYTES)
HEAD = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n"
) % (len(BODY) - 1, len(BODY), len(BODY))


@contextlib.contextmanager
def answering(*portions: bytes) -> Iterator[tuple[str, list[int]]]:
    """Send portions to each connection; yield the URL, and the ports of clients so far."""
    accepted: list[int] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, (_, port) = listener.accept()
                with connection:
                    accepted.append(port)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.recv(1 << 16)
                    for portion in portions:
                        connection.sendall(portion)
                        time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", accepted
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


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
        assert read(Ranges(), url) == BODY


def test_a_connection_that_the_server_closed_is_replaced():
    ranges = Ranges()
    with answering(HEAD + BODY) as (url, accepted):
        assert [read(ranges, url) for _ in range(3)] == [BODY] * 3
        assert len(accepted) == 3


def test_an_answer_that_ends_early_is_an_error_and_one_that_stops_ends_with_the_deadline():
    with answering(HEAD + BODY[:-1]) as (url, _), pytest.raises(AnswerError):
        read(Ranges(), url)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(TimeoutError),
    ):
        read(Ranges(), f"http://127.0.0.1:{silent.getsockname()[1]}/x", 0.2)


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
        ("a proxy", "a proxy"),
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


def test_after_three_ranges_that_only_the_driver_got_it_is_asked_first(
    web: WebServer,
):
    skip_unless("fsspec", "aiohttp")
    from zcfuse.remote._drivers import Driver

    web.knows_ranges = False
    driver = Driver(web.url, {})
    info = driver.look(driver.root, b"large", 20)
    assert info is not None
    asked = []
    for at in range(5):
        before = web.requests["GET", "large"]
        reason = driver.read(info, at * PIECE_BYTES, PIECE_BYTES, 20, lambda _: None)
        asked.append((web.requests["GET", "large"] - before, reason))
    assert asked == [(2, "status 200")] * 3 + [(1, "status 200")] * 2
