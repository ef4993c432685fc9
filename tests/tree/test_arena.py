"""Bytes in sealed memory: few descriptors, unchangeable, and released."""

import fcntl
import gc
import os
import resource

import pytest

from zcfuse.tree import Bytes, Dir, VirtualTree
from zcfuse.tree._arena import Arena
from zcfuse.tree._paths import PathOpener
from zcfuse.tree._sources import Sources

ALL_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def content(place, size):
    return os.pread(place.memory.fd, size, place.offset)


def test_small_contents_share_descriptors_and_keep_their_bytes():
    arena = Arena()
    before = descriptors()
    contents = [b"%d" % n * (n % 50) for n in range(20_000)]
    places = [arena.place(memoryview(data)) for data in contents]
    assert descriptors() - before <= 10
    for data, place in zip(contents, places, strict=True):
        assert content(place, len(data)) == data


def test_a_large_content_is_a_file_of_its_own():
    arena = Arena(large=1000)
    place = arena.place(memoryview(b"x" * 1000))
    assert (place.offset, place.whole) == (0, True)
    assert os.fstat(place.memory.fd).st_size == 1000
    assert fcntl.fcntl(place.memory.fd, fcntl.F_GET_SEALS) == ALL_SEALS


@pytest.mark.parametrize("size", [10, 5000])
def test_nobody_can_change_them_by_the_descriptor(size):
    place = Arena(large=1000).place(memoryview(b"x" * size))
    fd = place.memory.fd
    for change in (
        lambda: os.pwrite(fd, b"y", 0),
        lambda: os.truncate(fd, 0),
        lambda: os.truncate(fd, 1 << 30),
        lambda: os.posix_fallocate(fd, 1 << 30, 10),
    ):
        with pytest.raises(PermissionError):
            change()
    assert content(place, size) == b"x" * size


def test_large_contents_share_descriptors_once_a_share_of_the_limit_is_used(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    arena = Arena(large=1000)
    before = descriptors()
    places = [arena.place(memoryview(b"%4d" % n * 1000)) for n in range(100)]
    assert sum(place.whole for place in places) == 10
    assert descriptors() - before <= 12
    assert all(content(place, 4) == b"%4d" % n for n, place in enumerate(places))


def test_a_content_larger_than_a_chunk_finds_place(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 0))
    place = Arena().place(memoryview(bytes(5 << 20) + b"end"))
    assert os.pread(place.memory.fd, 10, place.offset + (5 << 20))[:3] == b"end"


def test_memory_is_given_back_with_the_last_content_in_it():
    before = descriptors()
    arena = Arena(large=1000)
    places = [arena.place(memoryview(b"x" * size)) for size in (10, 2000, 20)]
    del places, arena
    gc.collect()
    assert descriptors() == before


def test_an_entry_is_served_from_where_it_lies():
    entry = Bytes(b"hello")
    sources = Sources(PathOpener(), keep=True)
    (run,) = entry.runs(sources).runs
    assert os.pread(run.source.fd, run.length, run.offset) == b"hello"
    sources.close()
    assert os.pread(run.source.fd, run.length, run.offset) == b"hello"


def test_an_open_file_outlives_the_entry():
    directory = Dir({"name": Bytes(b"hello" * 1000)})
    tree = VirtualTree(directory)
    node, _ = tree.lookup(tree.root, b"name")
    opened = tree.open(node)
    directory.remove("name")
    del node
    gc.collect()
    assert opened.pread(5, 5) == b"hello"
