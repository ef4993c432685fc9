"""Listings of a bucket that come page by page, from a server that holds pages back."""

import errno
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.remote.kills import told
from tests.support import Mounter, eventually, requires, skip_unless
from zcfuse.options import DEFAULT_CACHE_TIMEOUT_S
from zcfuse.remote import Remote, _tree
from zcfuse.remote._fetchers import RemoteError, waited
from zcfuse.remote._listings import ListRequest
from zcfuse.remote._messages import Info
from zcfuse.remote._names import NameTable
from zcfuse.tree import Node

PAGE = 100
KEYS = 350
NAMES = [b"key-%04d" % number for number in range(KEYS)]
# For so long at most a page is held back. The driver asks again for one that takes longer.
_HELD_S = 100


class Lister:
    """A bucket of empty objects. `held` are pages, by number, that wait for `released`.

    A page that is no longer held comes at once.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.failing: set[int] = set()
        self.released = threading.Event()
        self.asked: list[int] = []
        lister = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                name = self.path.partition("/bucket/many/")[2].encode()
                self._reply(200 if name in NAMES else 404, b"")

            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                prefix = asked.get("prefix", [""])[0]
                if prefix != "many/":
                    found = [] if prefix else ["many/"]
                    self._reply(200, _page(found, None, prefixes=True))
                    return
                number = int(asked.get("continuation-token", ["0"])[0])
                lister.asked.append(number)
                until = time.monotonic() + _HELD_S
                while number in lister.held and time.monotonic() < until:
                    if lister.released.wait(0.02):
                        break
                if number in lister.failing:
                    self._reply(403, b"")
                    return
                keys = NAMES[number * PAGE : (number + 1) * PAGE]
                more = number + 1 if (number + 1) * PAGE < KEYS else None
                self._reply(200, _page([f"many/{key.decode()}" for key in keys], more))

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("ETag", '"x"')
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(10)


def _page(keys: list[str], following: int | None, *, prefixes: bool = False) -> bytes:
    if prefixes:
        found = "".join(f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>" for key in keys)
    else:
        found = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;x&quot;</ETag><Size>0</Size></Contents>"
            for key in keys
        )
    token = (
        "" if following is None else f"<NextContinuationToken>{following}</NextContinuationToken>"
    )
    return (
        f"<ListBucketResult><IsTruncated>{str(following is not None).lower()}</IsTruncated>"
        f"{token}{found}</ListBucketResult>"
    ).encode()


@pytest.fixture
def lister() -> Iterator[Lister]:
    skip_unless("fsspec", "s3fs")
    server = Lister()
    yield server
    server.close()


@pytest.fixture
def remote(lister: Lister, tmp_path: Path) -> Iterator[Remote]:
    made = Remote(
        "s3://bucket",
        cache_dir=str(tmp_path / "cache"),
        deadline=float(_HELD_S),
        anon=True,
        config_kwargs={"read_timeout": _HELD_S},
        endpoint_url=lister.endpoint,
    )
    yield made
    made.close()


def test_a_listing_of_several_pages_has_each_name_once(remote: Remote, lister: Lister):
    node, _ = remote.lookup(remote.root, b"many")
    for _ in range(2):
        listing = remote.listing(node)
        found = list(listing.entries(0))
        assert [name for _, name, *_ in found] == [b".", b"..", *NAMES]
        assert [offset for offset, *_ in found] == list(range(1, KEYS + 3))
        assert [name for _, name, *_ in listing.entries(KEYS)] == NAMES[-2:]
        listing.close()
    assert lister.asked == [0, 1, 2, 3]


def test_a_page_that_fails_is_an_error_and_no_shorter_listing(remote: Remote, lister: Lister):
    lister.failing = {2}
    node, _ = remote.lookup(remote.root, b"many")
    with pytest.raises(RemoteError) as failure:
        list(remote.listing(node).entries(0))
    assert failure.value.errno == errno.EACCES
    lister.failing = set()
    assert len(list(remote.listing(node).entries(0))) == KEYS + 2


def _left_by_a_lookup(remote: Remote, lister: Lister, node: Node) -> ListRequest:
    """Have a lookup take the first pages of a listing; return it once the last page is there."""
    lister.held = {3}
    lister.released.clear()
    remote.lookup(node, NAMES[0])
    [request] = remote._requests.values()
    lister.released.set()
    waited(request.answer, 60)
    return request


def test_pages_that_a_lookup_left_are_not_asked_again_for_a_listing(remote: Remote, lister: Lister):
    node, _ = remote.lookup(remote.root, b"many")
    _left_by_a_lookup(remote, lister, node)
    assert [name for _, name, *_ in remote.listing(node).entries(2)] == NAMES
    assert lister.asked == [0, 1, 2, 3]


def test_a_listing_that_nobody_took_for_long_is_fetched_again(remote: Remote, lister: Lister):
    node, _ = remote.lookup(remote.root, b"many")
    _left_by_a_lookup(remote, lister, node).came_s -= DEFAULT_CACHE_TIMEOUT_S + 1
    remote.lookup(node, NAMES[0])
    assert lister.asked == [0, 1, 2, 3]
    _left_by_a_lookup(remote, lister, node)
    assert lister.asked == 2 * [0, 1, 2, 3]


def test_a_listing_that_others_displace_is_given_up_and_its_readers_get_the_rest(
    remote: Remote, lister: Lister, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_tree, "_MOST_LISTINGS", 1)
    lister.held = {3}
    node, _ = remote.lookup(remote.root, b"many")
    reader = remote.listing(node).entries(2)
    first = next(reader)
    assert len(remote._requests) == 1
    remote.lookup(remote.root, b"many")
    assert list(remote._listings) == [""]
    assert remote._requests == {}
    lister.released.set()
    assert [name for _, name, *_ in (first, *reader)] == NAMES
    assert lister.asked == [0, 1, 2, 3]


def test_names_that_come_while_a_reader_looks_wait_for_no_further_page(
    remote: Remote, lister: Lister, monkeypatch: pytest.MonkeyPatch
):
    lister.held = {1, 3}
    node, _ = remote.lookup(remote.root, b"many")
    reader = remote.listing(node).entries(2)
    names = [next(reader)[1] for _ in range(PAGE)]
    entries = NameTable.entries

    def looking(table: NameTable, start: int, most: int) -> list[tuple[int, Info]]:
        found = entries(table, start, most)
        if not found:
            monkeypatch.undo()
            lister.held = {3}
            assert eventually(lambda: len(table) == 3 * PAGE, 60)
        return found

    monkeypatch.setattr(NameTable, "entries", looking)
    names += [next(reader)[1] for _ in range(2 * PAGE)]
    lister.released.set()
    assert [*names, *(name for _, name, *_ in reader)] == NAMES
    assert lister.asked == [0, 1, 2, 3]


@requires("mounting")
def test_a_client_sees_the_first_names_and_others_before_the_last_page(
    lister: Lister, mounted: Mounter, tmp_path: Path
):
    lister.held = {3}
    options = ["--option=anon=true", f"--option=endpoint_url={lister.endpoint}", "--immutable"]
    options.append(f'--option=config_kwargs={{"read_timeout": {_HELD_S}}}')
    limits = ("--cache-dir", str(tmp_path / "cache"), "--cache-floor", "0", f"--deadline={_HELD_S}")
    daemon = mounted(*options, *limits, source="s3://bucket")
    code = (
        "import os, sys; path = sys.argv[1]\n"
        "print(os.path.exists(f'{path}/key-0349'), os.path.exists(f'{path}/other'), flush=True)\n"
        "with os.scandir(path) as entries:\n"
        "    print(next(entries).name, flush=True)\n"
        "    print(1 + sum(1 for _ in entries))"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code, daemon.path("many")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "True False\n"
        lister.released.set()
        assert client.stdout.readline() == "key-0000\n"
        assert client.stdout.readline() == f"{KEYS}\n"
    finally:
        client.kill()
        client.communicate()
    assert lister.asked == [0, 1, 2, 3]
    assert told(daemon)["failures"] == 0
