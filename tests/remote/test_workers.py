"""A worker and a server's faults, without a mount: right bytes, or an error and none."""

import contextlib
import errno
import os
import resource
import signal
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.remote.conftest import LARGE, Ask
from tests.remote.server import FAULTS, WebServer
from tests.support import skip_unless
from zcfuse.remote import Remote
from zcfuse.remote._cache import PIECE_BYTES, Cache, Entry, key_of
from zcfuse.remote._drivers import named
from zcfuse.remote._fetchers import Fetchers, Parts, RemoteError, waited
from zcfuse.remote._messages import Arrived, Ensure, Ensured, Failed, Info, Look, Looked, Setup
from zcfuse.remote._source import identity_of, place_of, shown_url
from zcfuse.remote._worker import Worker
from zcfuse.tree import Filter, NotYetError, Union, Who


@pytest.fixture
def ask(web: WebServer, workers: Callable[[Setup], Ask], tmp_path: Path) -> Ask:
    return workers(Setup(web.url, "server", {}, str(tmp_path), "1000000000", "0", 1))


def _info(ask: Ask) -> Info:
    looked = ask(Look(1, "", b"large", 30))
    assert isinstance(looked, Looked)
    assert looked.info is not None
    return looked.info


@pytest.mark.parametrize("fault", [one for one in FAULTS if one not in ("none", "slow")])
def test_a_lasting_fault_is_an_error_and_leaves_nothing_in_the_cache(
    ask: Ask, web: WebServer, tmp_path: Path, fault: str
):
    info = _info(ask)
    web.fault, web.faulty = fault, 10**6
    key = key_of("server", info.path, info.version)
    with pytest.raises(RemoteError) as failure:
        ask(Ensure(2, key, info, 0, PIECE_BYTES, True, 1.0))
    assert (failure.value.errno, failure.value.unreachable) == (errno.EIO, True)
    kept = ask(Ensure(3, key, info, 0, len(LARGE), False, 1.0))
    assert isinstance(kept, Ensured)
    assert kept.good == []


class _Fetch:
    """A fetch of the first pieces of "large", under way: a worker has told of some."""

    length = 8 * PIECE_BYTES

    def __init__(self, fetchers: Fetchers, web: WebServer, cache: Path) -> None:
        looked = waited(fetchers.ask(lambda number: Look(number, "", b"large", 20)), 60)
        assert isinstance(looked, Looked)
        assert looked.info is not None
        self._info = looked.info
        self._key = key_of("server", self._info.path, self._info.version)
        self._cache = Cache(str(cache), "1000000000", "0")
        self.parts: Parts[Arrived] = Parts()
        web.fault, web.faulty = "slow", 1
        first = self.parts.next
        self.answer = fetchers.ask(self.request, self.parts)
        waited(first, 60)

    def request(self, number: int) -> Ensure:
        return Ensure(number, self._key, self._info, 0, self.length, True, 20)

    def entry(self) -> Entry:
        return self._cache.open(self._key, len(LARGE), "u", self._info.version)


@pytest.fixture
def fetchers(web: WebServer, tmp_path: Path) -> Iterator[Fetchers]:
    made = Fetchers(Setup(web.url, "server", {}, str(tmp_path), "1000000000", "0", 1))
    yield made
    made.close()


def test_a_request_that_is_cancelled_asks_the_server_nothing_more(
    fetchers: Fetchers, web: WebServer
):
    look = fetchers.ask(lambda number: Look(number, "", b"large", 20))
    looked = waited(look, 60)
    assert isinstance(looked, Looked)
    info = looked.info
    assert info is not None
    key = key_of("server", info.path, info.version)
    web.fault, web.faulty = "slow", 10**6
    asked = [
        fetchers.ask(lambda number, at=at: Ensure(number, key, info, at, PIECE_BYTES, True, 20))
        for at in range(0, 16 * PIECE_BYTES, PIECE_BYTES)
    ]
    # Two processes with two threads have the first ones in hand.
    fetchers.cancel(asked[4:])
    for answer in asked[:4]:
        assert isinstance(waited(answer, 60), Ensured)
    for answer in asked[4:]:
        with pytest.raises(RemoteError) as failure:
            waited(answer, 60)
        assert failure.value.errno == errno.ECANCELED
    assert len(web.ranges) == 4


def test_a_request_under_way_that_is_cancelled_takes_no_more_bytes(
    fetchers: Fetchers, web: WebServer, tmp_path: Path
):
    fetch = _Fetch(fetchers, web, tmp_path)
    fetchers.cancel([fetch.answer])
    with pytest.raises(RemoteError) as failure:
        waited(fetch.answer, 60)
    assert failure.value.errno == errno.ECANCELED
    with contextlib.closing(fetch.entry()) as entry:
        assert entry.records() == {}
    # Whoever wants the range afterwards gets it.
    done = waited(fetchers.ask(fetch.request), 60)
    assert isinstance(done, Ensured)
    assert done.good == [(0, fetch.length)]


def test_pieces_are_told_of_while_the_rest_of_a_range_is_on_its_way(
    fetchers: Fetchers, web: WebServer, tmp_path: Path
):
    fetch = _Fetch(fetchers, web, tmp_path)
    assert not fetch.answer.done()
    with contextlib.closing(fetch.entry()) as entry:
        # Its record comes last, so another mount does not take it for present.
        assert entry.records() == {}
        told = fetch.parts.take()
        assert told[0].first == 0
        came = told[-1].stop * PIECE_BYTES
        assert os.pread(entry.data, came, 0) == LARGE[:came]
        done = waited(fetch.answer, 60)
        assert isinstance(done, Ensured)
        assert done.good == [(0, fetch.length)]
        assert sorted(entry.records()) == list(range(8))


def test_a_broken_connection_goes_on_where_the_bytes_ended(ask: Ask, web: WebServer):
    info = _info(ask)
    web.fault, web.faulty = "cut", 1
    key = key_of("server", info.path, info.version)
    length = 8 * PIECE_BYTES
    done = ask(Ensure(2, key, info, 0, length, True, 20))
    assert isinstance(done, Ensured)
    assert (done.good, done.retries) == ([(0, length)], 1)
    assert web.ranges == [("large", 0, length - 1), ("large", length // 2, length - 1)]


def test_a_cache_file_that_takes_no_bytes_fails_the_request_at_once(
    ask: Ask, web: WebServer, tmp_path: Path
):
    info = _info(ask)
    key = key_of("server", info.path, info.version)
    worker = Worker(Setup(web.url, "server", {}, str(tmp_path), "1000000000", "0", 1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    entry = Cache(str(tmp_path), "1000000000", "0").open(key, len(LARGE), "u", info.version)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (PIECE_BYTES, before[1]))
        at = 8 * PIECE_BYTES
        failed = worker.answer(Ensure(1, key, info, at, PIECE_BYTES, True, 20), lambda _: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(failed, Failed)
    assert (failed.errno, failed.requests) == (errno.EFBIG, 1)
    assert entry.records() == {}
    entry.close()


def test_another_version_is_refused(ask: Ask, web: WebServer):
    info = _info(ask)
    web.files["large"] = LARGE[::-1]
    key = key_of("server", info.path, info.version)
    with pytest.raises(RemoteError) as failure:
        ask(Ensure(2, key, info, 0, PIECE_BYTES, True, 20))
    assert (failure.value.errno, failure.value.unreachable) == (errno.ESTALE, False)


async def test_a_union_and_a_filter_of_a_server_never_stop_a_trio_thread(tmp_path: Path):
    skip_unless("fsspec")
    below = tmp_path / "below"
    below.mkdir()
    (below / "local").touch()
    remote = Remote(f"file://{tmp_path}", cache_dir=str(tmp_path / "cache"), cache_timeout=0)
    for tree, name in (
        (Union([str(below), remote]), b"cache"),
        (Union([remote, str(below)]), b"local"),
        (Filter(remote, hide=["x"]), b"cache"),
    ):
        with pytest.raises(NotYetError):
            tree.lookup(tree.root, name)
        answer = tree.lookup_for(tree.root, name, Who(0, 0, 0))
        assert isinstance(answer, Awaitable)
        node, attributes = await answer
        assert stat.S_ISDIR(attributes.mode) == (name == b"cache")
        assert tree.attributes(node) == attributes
    remote.close()


async def test_a_lookup_never_stops_a_trio_thread(tmp_path: Path):
    skip_unless("fsspec")
    remote = Remote(f"file://{tmp_path}", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(NotYetError):
        remote.lookup(remote.root, b"x")
    answer = remote.lookup_for(remote.root, b"cache", Who(0, 0, 0))
    assert isinstance(answer, Awaitable)
    _, attributes = await answer
    assert stat.S_ISDIR(attributes.mode)
    # Now the listing answers at once, for present and missing names.
    assert remote.lookup_for(remote.root, b"cache", Who(0, 0, 0)) != answer
    with pytest.raises(FileNotFoundError):
        remote.lookup_for(remote.root, b"x", Who(0, 0, 0))
    remote.close()


def _fact(name: bytes, *, is_directory: bool = False, size: int = 1) -> Info:
    return Info(name, "path", is_directory, size, 0, "")


def test_keys_that_are_no_names_are_left_out_and_counted():
    bad = [b"..", b".", b"a/b", b"a\0", b"x" * 256, b""]
    names, left_out = named([*map(_fact, bad), _fact(b"good"), _fact(b"", size=0)])
    assert [info.name for info in names] == [b"good"]
    assert left_out == len(bad)


def test_a_file_that_is_also_a_prefix_is_left_out():
    both = [_fact(b"a"), _fact(b"a", is_directory=True)]
    for order in (both, both[::-1]):
        names, left_out = named(order)
        assert [(info.name, info.is_directory) for info in names] == [(b"a", True)]
        assert left_out == 1


def test_a_shown_url_has_no_part_that_may_be_secret():
    assert shown_url("https://u:p@host:8/a?sig=x#y") == "https://host:8/a"
    assert shown_url("abfs://box@account.net/a") == "abfs://box@account.net/a"
    assert shown_url("abfs://box:p@account.net/a") == "abfs://account.net/a"
    assert place_of("s3://b/p", "b/p/key") == "s3://b/p/key"


def test_mounts_share_bytes_whoever_asks_but_not_across_servers():
    same = identity_of("s3://b", {"endpoint_url": "http://h", "key": "k", "secret": "s"})
    assert same == identity_of("s3://b", {"endpoint_url": "http://h", "key": "other"})
    assert same != identity_of("s3://b", {"endpoint_url": "http://other", "key": "k"})
