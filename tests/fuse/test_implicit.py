"""Files that control opens on an immutable mount, where clients send no OPEN."""

import errno
import os

import pytest

from tests.fuse.fakes import (
    CONTEXT,
    ROOT,
    Reply,
    errno_of,
    listed,
    look_up,
    make_old,
)
from zcfuse.fuse._implicit import KEPT, ImplicitHandles, implied_node

IMPLICIT = 1 << 63
OWN = 1 << 62


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("handle", "nodeid"), [(1, None), (OWN | 5, None), (IMPLICIT | 5, 5), (IMPLICIT | OWN, OWN)]
)
def test_a_handle_says_whether_it_stands_for_a_node(handle, nodeid):
    assert implied_node(handle) == nodeid


def test_the_longest_unused_handle_is_given_up():
    released = []
    handles = ImplicitHandles(released.append, limit=2)
    handles.keep(1, 101)
    handles.keep(2, 102)
    assert handles.find(1) == 101
    handles.keep(3, 103)
    assert (released, handles.find(2), handles.find(1)) == ([102], None, 101)


def test_a_node_has_one_handle():
    released = []
    handles = ImplicitHandles(released.append)
    handles.keep(1, 101)
    handles.keep(1, 102)
    handles.drop(1)
    handles.drop(1)
    assert released == [101, 102]


async def test_a_file_that_nobody_opened_is_read_and_leased(source, leases, operations):
    make_old(source / "f", "bytes")
    nodeid = await look_up(operations, "f")
    assert await operations.read(IMPLICIT | nodeid, 1, 3) == b"yte"
    assert await operations.read(IMPLICIT | nodeid, 4, 9) == b"s"
    assert leases.calls == [("install", nodeid, [b"byte"])]
    assert operations.statistics().open_handles == 1


async def test_it_is_closed_when_the_kernel_forgets_it(source, leases, operations):
    make_old(source / "f", "bytes")
    (source / "d").mkdir()
    file, directory = await look_up(operations, "f"), await look_up(operations, "d")
    await operations.read(IMPLICIT | file, 0, 5)
    await listed(operations, IMPLICIT | directory)
    await operations.forget([(file, 1), (directory, 1)])
    found = operations.statistics()
    assert (found.open_files, found.open_directories) == (0, 0)
    assert leases.calls[-1] == ("revoke", file)
    assert await errno_of(operations.read, IMPLICIT | file, 0, 5) == errno.ESTALE


async def test_many_files_are_open_only_some_at_once(source, operations):
    for n in range(3 * KEPT):
        make_old(source / f"{n}", f"{n}")
    nodes = [await look_up(operations, f"{n}") for n in range(3 * KEPT)]
    for _ in range(2):
        found = [await operations.read(IMPLICIT | nodeid, 0, 9) for nodeid in nodes]
        assert found == [b"%d" % n for n in range(3 * KEPT)]
        assert operations.statistics().open_files == KEPT


async def test_a_directory_is_listed_from_any_place(source, operations):
    for n in range(40):
        (source / f"{n}").touch()
    whole = await listed(operations, IMPLICIT | ROOT)
    names = [name for name, *_ in whole]
    assert sorted(names) == sorted([b".", b"..", *(b"%d" % n for n in range(40))])
    for at in (0, 17, 30):
        rest = await listed(operations, IMPLICIT | ROOT, whole[at][2], room=5)
        assert [name for name, *_ in rest] == names[at + 1 : at + 6]
    assert operations.statistics().open_directories == 1


async def test_what_is_wrong_with_a_node_is_told(source, operations):
    (source / "d").mkdir()
    make_old(source / "f")
    directory, file = await look_up(operations, "d"), await look_up(operations, "f")
    assert await errno_of(operations.read, IMPLICIT | directory, 0, 5) == errno.EISDIR
    assert await errno_of(operations.readdir, IMPLICIT | file, 0, Reply()) == errno.ESTALE
    assert await errno_of(operations.read, IMPLICIT | 999, 0, 5) == errno.ESTALE
    os.rename(source / "f", source / "g")
    assert await errno_of(operations.read, IMPLICIT | file, 0, 5) == errno.ESTALE
    assert operations.statistics().open_handles == 0


async def test_what_depends_on_who_asks_is_refused_where_it_would_be_cached(
    source, operations, monkeypatch
):
    make_old(source / "f", "secret")
    (source / "d").mkdir()
    file, directory = await look_up(operations, "f"), await look_up(operations, "d")

    class Volatile(type(operations._nodes.node(file))):
        __slots__ = ()
        volatile = True

    for nodeid in (file, directory):
        operations._nodes.node(nodeid).__class__ = Volatile
    assert await errno_of(operations.read, IMPLICIT | file, 0, 5) == errno.EACCES
    assert await errno_of(operations.readdir, IMPLICIT | directory, 0, Reply()) == errno.EACCES
    handle = await operations.opendir(directory, CONTEXT)
    assert len(await listed(operations, handle)) == 2
