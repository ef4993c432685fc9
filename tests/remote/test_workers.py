"""A worker and a server's faults, without a mount: right bytes, or an error and none."""

from pathlib import Path

import pytest

from tests.remote.conftest import LARGE
from tests.remote.server import FAULTS, WebServer
from zcfuse.remote._cache import PIECE_BYTES, key_of
from zcfuse.remote._drivers import named
from zcfuse.remote._messages import Ensure, Ensured, Failed, Info, Look, Looked, Setup
from zcfuse.remote._source import identity_of, place_of, shown_url
from zcfuse.remote._worker import Worker


@pytest.fixture
def worker(web: WebServer, tmp_path: Path) -> Worker:
    return Worker(Setup(web.url, "server", {}, str(tmp_path), "1000000000", "0", 1))


def _info(worker: Worker) -> Info:
    looked = worker.answer(Look(1, "", b"large", 5))
    assert isinstance(looked, Looked)
    assert looked.info is not None
    return looked.info


@pytest.mark.parametrize("fault", [one for one in FAULTS if one != "none"])
def test_a_lasting_fault_is_an_error_and_leaves_nothing_in_the_cache(
    worker: Worker, web: WebServer, tmp_path: Path, fault: str
):
    info = _info(worker)
    web.fault, web.faulty = fault, 10**6
    key = key_of("server", info.path, info.version)
    reply = worker.answer(Ensure(2, key, info, 0, PIECE_BYTES, True, 1.0))
    assert isinstance(reply, Failed)
    assert reply.unreachable
    kept = worker.answer(Ensure(3, key, info, 0, len(LARGE), False, 1.0))
    assert isinstance(kept, Ensured)
    assert kept.good == []


def test_another_version_is_refused(worker: Worker, web: WebServer):
    info = _info(worker)
    web.files["large"] = LARGE[::-1]
    key = key_of("server", info.path, info.version)
    reply = worker.answer(Ensure(2, key, info, 0, PIECE_BYTES, True, 1.0))
    assert isinstance(reply, Failed)
    assert not reply.unreachable


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
