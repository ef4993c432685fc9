"""The packed facts of names, compared with the facts that went in."""

import contextlib
import errno
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcfuse.remote._messages import Info
from zcfuse.remote._names import NameStore, NameTable

_SIZES = st.none() | st.integers(0, 2**63 - 1)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_ABOVE = st.sampled_from(["bucket/prefix/", "http://host/d/", ""])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NameStore]:
    made = NameStore(str(tmp_path))
    yield made
    made.close()


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have writes of this process beyond `size` bytes of a file fail."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@st.composite
def infos(draw: st.DrawFn) -> Info:
    name = draw(st.binary(min_size=1, max_size=6))
    size = draw(_SIZES)
    text = name.decode("utf-8", "surrogateescape")
    same = text if text.isprintable() else "%s"
    path = draw(_ABOVE) + draw(st.sampled_from([same, "quoted%20"]) | _TEXTS)
    version = draw(st.sampled_from([f"{size} ", ""])) + draw(_TEXTS)
    return Info(name, path, draw(st.booleans()), size, draw(st.integers(0, 2**62)), version)


def names_of(table: NameTable) -> list[bytes]:
    return [info.name for _, info in table.entries(0, 10**6)]


@settings(deadline=None)
@given(st.lists(infos(), max_size=20), st.lists(infos(), max_size=5))
def test_a_table_returns_the_facts_that_it_got_in_the_order_of_their_names(
    added: list[Info], replaced: list[Info]
):
    with tempfile.TemporaryDirectory() as directory:
        store = NameStore(directory)
        table = NameTable(store)
        table.add(added)
        expected: dict[bytes, Info] = {}
        for info in added:
            expected.setdefault(info.name, info)
        for info in replaced:
            table.put(info)
            expected[info.name] = info
        assert [info for _, info in table.entries(0, 100)] == list(expected.values())
        assert [table.get(name) for name in expected] == list(expected.values())
        assert len(table) == len(expected)
        store.close()


def test_a_name_that_was_removed_is_missing_and_the_others_keep_their_numbers(store: NameStore):
    table = NameTable(store)
    table.add([Info(bytes([letter]), f"x/{letter:c}", False, 1, 2, '1 "t"') for letter in b"abcd"])
    table.remove(b"a")
    table.remove(b"e")
    assert table.get(b"a") is None
    assert (names_of(table), len(table)) == ([b"b", b"c", b"d"], 3)
    assert [(number, info.name) for number, info in table.entries(2, 1)] == [(2, b"c")]


def test_tables_do_not_see_each_other_and_free_their_names(store: NameStore, tmp_path: Path):
    def fact(number: int, text: str) -> Info:
        return Info(b"%d" % number, text, False, number, 0, "")

    first = NameTable(store)
    first.add(fact(number, "first") for number in range(1000))
    second = NameTable(store)
    second.add([fact(1, "second")])
    assert (first.get(b"1"), second.get(b"1")) == (fact(1, "first"), fact(1, "second"))
    del first
    second.add(fact(number, "second") for number in range(1000))
    assert len(second) == len(names_of(second)) == 1000
    with store.lock, store.using() as database:
        assert database.execute("SELECT count(*) FROM names").fetchone() == (1000,)
    assert os.listdir(tmp_path) == []  # the file has no name


def test_names_of_discarded_tables_give_room_on_a_full_disk(store: NameStore):
    infos = [Info(b"%d" % number, "x" * 100, False, 1, 2, "") for number in range(4000)]
    table = NameTable(store)
    table.add(infos)
    with store.lock, store.using() as database:
        [pages] = database.execute("PRAGMA page_count").fetchone()
        [page_bytes] = database.execute("PRAGMA page_size").fetchone()
    del table
    table = NameTable(store)
    with files_of_at_most(pages * page_bytes):
        table.add(infos[:3000])
    assert names_of(table) == [info.name for info in infos[:3000]]


def test_a_directory_that_is_gone_is_an_error_and_no_missing_name(tmp_path: Path):
    store = NameStore(str(tmp_path / "gone"))
    with pytest.raises(OSError) as failure:  # noqa: PT011 - the errno is what counts
        NameTable(store).add([Info(b"a", "x/a", False, 1, 2, "")])
    assert failure.value.errno == errno.EIO
    store.close()


def test_a_disk_that_takes_no_names_is_an_error_and_keeps_the_earlier_ones(store: NameStore):
    table = NameTable(store)
    table.add([Info(b"earlier", "x", False, 1, 2, "")])
    many = [Info(b"%d" % number, "x" * 100, False, 1, 2, "") for number in range(10_000)]
    with files_of_at_most(1 << 16), pytest.raises(OSError) as failure:  # noqa: PT011 - of SQLite
        table.add(many)
    assert failure.value.errno in (errno.ENOSPC, errno.EIO)
    assert (names_of(table), len(table)) == ([b"earlier"], 1)
    table.add(many)
    assert len(table) == len(names_of(table)) == 10_001
