"""Trees that a program changes while they are mounted."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import CACHED_PATHS, PASSTHROUGH, write
from tests.integration.counts import eventually
from tests.support import requires

pytestmark = requires("mounting")

TREE = """
old, new = where + "/old", where + "/new"
tree = Dir({"file": File(old), "piece": Slice(old, 1), "bytes": Bytes(b"o" * (3 << 20)),
            "dir": Dir({"inner": Bytes(b"inner")})})
options = MountOptions(path=path, cache_timeout=1000)
"""
SIZE = 3 << 20


@pytest.fixture
def where(tmp_path):
    path = tmp_path / "where"
    path.mkdir()
    (path / "old").write_bytes(b"o" * (SIZE + 1))
    (path / "new").write_bytes(b"new")
    return str(path)


@pytest.mark.parametrize("path", ["naive", "upcall", *CACHED_PATHS, PASSTHROUGH])
def test_readers_of_a_replaced_file_keep_the_old_bytes(shows, where, path) -> None:
    program, client = shows(TREE, where=where, path=path)
    for name in ("file", "piece", "bytes"):
        client.value(f"globals().update(fd=opened({name!r})) or os.pread(fd, 9, 0)")
        program.run(f"tree.replace({name!r}, Slice(new, 1, 1)); await served.notified()")
        assert client.value(f"content({name!r})") == b"e"
        assert client.value("forget_pages(fd) or os.pread(fd, 1 << 22, 9)").strip(b"o") == b""
        assert client.value("os.fstat(fd).st_size") >= SIZE
        assert client.value(f"os.fstat(fd).st_ino != os.stat(p({name!r})).st_ino")
        client.value("os.close(fd)")


def test_a_mirror_stays_with_its_directory_until_it_is_replaced(shows, where) -> None:
    path = os.path.join(where, "mirrored")
    os.mkdir(path)
    os.mkdir(f"{path}-new")
    program, client = shows("tree = Dir({'raw': Mirror(path)})", path=path)
    assert client.value("os.listdir(p('raw'))") == []
    write(f"{path}-new", "file", b"new")
    os.rename(path, f"{path}-old")
    os.rename(f"{path}-new", path)
    write(f"{path}-old", "file", b"old")
    assert client.value("content('raw/file')") == b"old"
    program.run("tree.replace('raw', Mirror(path)); await served.notified()")
    assert client.value("content('raw/file')") == b"new"


def test_what_comes_and_goes_is_seen_at_once_whatever_the_kernel_may_cache(shows, where) -> None:
    program, client = shows(TREE, where=where, path="auto")
    assert client.outcome("content('later')") == "ENOENT"
    assert client.value("attributes()['nlink']") == 3
    program.run("tree.add('later', Dir({'a': Bytes(b'1')})); await served.notified()")
    assert client.value("content('later/a')") == b"1"
    assert client.value("attributes()['nlink']") == 4
    program.run("tree.remove('later'); await served.notified()")
    assert client.outcome("content('later/a')") == "ENOENT"
    assert client.value("attributes()['nlink']") == 3
    assert client.value("content('dir/inner')") == b"inner"
    program.run("tree['dir'].remove('inner'); await served.notified()")
    assert client.outcome("content('dir/inner')") == "ENOENT"
    assert client.value("os.listdir(p('dir'))") == []


def test_a_file_may_become_a_directory_and_back(shows, where) -> None:
    program, client = shows(TREE, where=where, path="auto")
    assert client.value("content('bytes')")[:1] == b"o"
    program.run("tree.replace('bytes', Dir({'x': Bytes(b'x')})); await served.notified()")
    assert client.value("content('bytes/x')") == b"x"
    program.run("tree.replace('bytes', Symlink('file')); await served.notified()")
    assert client.value("os.readlink(p('bytes'))") == b"file"
    program.run("tree.replace('bytes', Bytes(b'again')); await served.notified()")
    assert client.value("content('bytes')") == b"again"


def test_a_listing_under_way_shows_each_name_once_and_nothing_that_is_gone(shows, where) -> None:
    tree = "tree = Dir({f'{n:04}': Bytes(b'') for n in range(2000)})\n"
    program, client = shows(tree, where=where)
    # os.scandir reads 32 KiB ahead.
    client.value("globals().update(names=os.scandir(p()), first=[]) or first.append(next(names))")
    program.run("""
for n in range(0, 2000, 2): tree.remove(f'{n:04}')
for n in range(2000, 3000): tree.add(f'{n:04}', Bytes(b''))
await served.notified()
""")
    found = client.value("sorted(int(entry.name) for entry in [*first, *names])")
    assert len(found) == len(set(found))
    assert set(range(1, 2000, 2)) <= set(found)
    assert len([n for n in found if n < 2000 and n % 2 == 0]) < 600
    assert len(client.value("os.listdir(p())")) == 2000


def test_a_tree_may_be_changed_by_a_policy_while_it_answers(shows, where) -> None:
    program, client = shows(
        """
class Counting(Dir):
    async def lookup(self, name, who):
        tree.replace("count", Bytes(name.encode()))
        tree.changed("asked")
        return Bytes(b"x") if name != "none" else None

tree = Dir({"count": Bytes(b"0"), "asked": Counting()})
options = MountOptions(cache_timeout=1000)
""",
        where=where,
    )
    assert client.value("content('count')") == b"0"
    for name in ("a", "b", "c"):
        assert client.value(f"content('asked/{name}')") == b"x"
        program.run("await served.notified()")
        assert client.value("content('count')") == name.encode()
    assert client.outcome("content('asked/none')") == "ENOENT"


def test_a_thousand_changes_leave_nothing_behind(shows, where) -> None:
    program, client = shows(TREE, where=where, path="auto")
    # The first of each kind; bytes of 64 KiB lie in chunks, whose number grows.
    descriptors = program.run("""
for n in range(1000):
    tree.replace('file', Bytes(b'%d' % n * 100))
    tree.replace('dir', Dir({'m': Mirror(where)}))
    if n == 0:
        first = len(os.listdir('/proc/self/fd'))
await served.notified()
return first
""")
    assert client.value("content('file')") == b"999" * 100
    assert client.value("content('dir/m/new')") == b"new"
    program.run("tree.remove('dir'); await served.notified(); import gc; gc.collect()")
    left = "return served.statistics()['datapath']['directories']['leased']"
    assert eventually(lambda: program.run(left) == 1)
    assert program.run("return len(os.listdir('/proc/self/fd'))") <= descriptors + 2


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_backing_file_that_is_replaced_is_another_file(shows, where, path) -> None:
    options = "options = MountOptions(path=path, cache_timeout=0)\n"
    _, client = shows(TREE + options, where=where, path=path)
    first = client.value("globals().update(fd=opened('file')) or os.fstat(fd).st_ino")
    os.rename(os.path.join(where, "new"), os.path.join(where, "old"))
    assert client.value("content('file')") == b"new"
    assert client.value("os.pread(fd, 3, SIZE)".replace("SIZE", str(SIZE - 3))) == b"ooo"
    assert client.value("os.stat(p('file')).st_ino") != first
    os.unlink(os.path.join(where, "old"))
    assert client.outcome("content('file')") == "ENOENT"
    assert client.value("sorted(os.listdir(p()))") == [b"bytes", b"dir"]


def test_a_part_that_shrinks_while_it_is_open_is_a_short_read(shows, where) -> None:
    tree = """
tree = Dir({"joined": Concat([where + "/old", Bytes(b"behind")])})
options = MountOptions(path="splice", cache_timeout=0)
"""
    _, client = shows(tree, where=where)
    client.value("globals().update(fd=os.open(p('joined'), os.O_RDONLY | os.O_DIRECT))")
    assert client.value("os.pread(fd, 100, 3 << 20)") == b"obehind"
    os.truncate(os.path.join(where, "old"), 1 << 20)
    assert client.value("len(os.pread(fd, 1 << 20, 1 << 19))") == 1 << 19
    assert client.value("os.pread(fd, 100, 2 << 20)") == b""
    assert client.value("os.fstat(fd).st_size") == 1 << 20
