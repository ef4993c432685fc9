import contextlib
import errno
import os
import stat
import threading
import zipfile

import pytest

from tests.support import eventually
from tests.tree.archive.support import (
    Seen,
    directory,
    extracted,
    hard_link,
    links,
    make_holes,
    member,
    symlink,
    tar,
    write,
)
from zcfuse.tree import HOLE
from zcfuse.tree.archive import Archive, Keep, UnpackBudget, _budget, _unpacked

BUDGET = 1 << 20


def errno_of(call, *arguments):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call(*arguments)
    return caught.value.errno


def resolve(tree, path):
    node = tree.root
    for name in path.split("/"):
        node, _ = tree.lookup(node, name.encode())
    return node


def opened(tree, node, seconds=20):
    """Open as a mount does: retry while the member is being decompressed."""
    found = []

    def is_open():
        with contextlib.suppress(BlockingIOError):
            found.append(tree.open(node))
        return found

    assert eventually(is_open, seconds)
    return found[0]


def read(tree, node):
    file = opened(tree, node)
    try:
        size = file.attributes().size
        found = file.pread(size + 10, 0)
        assert len(found) == size
        assert found == b"".join(
            bytes(extent.length)
            if extent.fd == HOLE
            else os.pread(extent.fd, min(extent.length, size), extent.offset)
            for extent in file.extents
        )
        for offset in range(0, size, max(size // 7, 1)):
            assert file.pread(1000, offset) == found[offset : offset + 1000]
        return found
    finally:
        file.close()
        file.close()


def shown(tree):
    seen, names = {}, {}

    def walk(node, above):
        listing = tree.listing(node)
        for _, name, found, attributes in listing.entries(0):
            if name in (b".", b".."):
                continue
            path = above + name
            kind = stat.S_IFMT(attributes.mode)
            content = None
            if kind == stat.S_IFREG:
                content = read(tree, found)
            elif kind == stat.S_IFLNK:
                content = tree.readlink(found)
            nlink = 0 if content is None else attributes.nlink
            seen[path] = Seen(attributes.mode, attributes.mtime_ns // 10**9, content, nlink)
            names.setdefault(attributes.ino, []).append(path)
            if kind == stat.S_IFDIR:
                walk(found, path + b"/")

    walk(tree.root, b"")
    return seen, links(names)


def descriptors_but_directories():
    """Return the descriptors, except those of directories, which live as long as their trees."""
    fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    return {fd for fd in fds if not os.path.isdir(f"/proc/self/fd/{fd}")}


@pytest.fixture
def descriptors():
    before = descriptors_but_directories()
    yield
    assert descriptors_but_directories() <= before


def test_a_tree_shows_what_gnu_tar_unpacks(tmp_path, descriptors):
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "data").write_bytes(os.urandom(100_000))
    make_holes(source / "holes", [1, 5], 10 * 65536 + 3)
    os.link(source / "holes", source / "a" / "linked")
    os.symlink("data", source / "a" / "soft")
    tar(tmp_path / "a.tar", source, "--sparse", "--format=pax")
    tree = Archive(tmp_path / "a.tar")
    assert shown(tree) == extracted(tmp_path / "a.tar", tmp_path / "x")
    tree.close()
    tree.close()


def test_holes_take_no_blocks(tmp_path):
    (tmp_path / "source").mkdir()
    make_holes(tmp_path / "source" / "f", [2], 100 * 65536)
    tar(tmp_path / "a.tar", tmp_path / "source", "--sparse")
    tree = Archive(tmp_path / "a.tar")
    attributes = tree.attributes(resolve(tree, "f"))
    assert (attributes.size, attributes.blocks) == (100 * 65536, 128)


def test_open_files_share_one_descriptor(tmp_path, descriptors):
    path = write(tmp_path / "a.tar", *[member(f"{n}", data=b"%d" % n) for n in range(50)])
    tree = Archive(path)
    before = len(os.listdir("/proc/self/fd"))
    files = [tree.open(resolve(tree, f"{n}")) for n in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert [file.pread(10, 0) for file in files] == [b"%d" % n for n in range(50)]
    for file in files:
        file.close()
    tree.close()


def test_lookups_and_opens_that_fail_say_why(tmp_path):
    members = [directory("d"), member("f"), symlink("s", "f"), hard_link("bad", "missing")]
    tree = Archive(write(tmp_path / "a.tar", *members))
    assert errno_of(tree.lookup, tree.root, b"missing") == errno.ENOENT
    assert errno_of(tree.lookup, tree.root, b"n" * 256) == errno.ENAMETOOLONG
    assert errno_of(tree.lookup, resolve(tree, "f"), b"x") == errno.ENOTDIR
    assert errno_of(tree.open, resolve(tree, "d")) == errno.EISDIR
    assert errno_of(tree.open, resolve(tree, "s")) == errno.ELOOP
    assert errno_of(tree.open, resolve(tree, "bad")) == errno.EIO
    assert errno_of(tree.readlink, resolve(tree, "f")) == errno.EINVAL
    assert errno_of(tree.listing, resolve(tree, "f")) == errno.ENOTDIR


def test_dots_lead_where_they_should(tmp_path):
    tree = Archive(write(tmp_path / "a.tar", member("a/b/c")))
    inner = resolve(tree, "a/b")
    entries = {name: node for _, name, node, _ in tree.listing(inner).entries(0)}
    assert entries[b"."].identity == inner.identity
    assert entries[b".."].identity == resolve(tree, "a").identity
    assert tree.lookup(tree.root, b"..")[0].identity == tree.root.identity


def test_a_listing_goes_on_from_any_offset(tmp_path):
    path = write(tmp_path / "a.tar", *[member(f"{number:04}") for number in range(700)])
    tree = Archive(path)
    everything = [entry[:2] for entry in tree.listing(tree.root).entries(0)]
    assert [offset for offset, _ in everything] == list(range(1, 703))
    for start in (0, 1, 2, 3, 513, 514, 515, 702):
        found = [entry[:2] for entry in tree.listing(tree.root).entries(start)]
        assert found == everything[start:]


def test_owners_can_be_given(tmp_path):
    tree = Archive(write(tmp_path / "a.tar", member("f", uid=1, gid=2)), uid=77)
    attributes = tree.attributes(resolve(tree, "f"))
    assert (attributes.uid, attributes.gid) == (77, 2)


def test_two_archives_have_different_inode_numbers(tmp_path):
    trees = [Archive(write(tmp_path / name, member("f"))) for name in ("a.tar", "b.tar")]
    inos = {tree.attributes(resolve(tree, "f")).ino for tree in trees}
    assert len(inos) == 2
    assert all(ino >> 63 for ino in inos)


@pytest.mark.parametrize("packed", [False, True])
def test_opens_after_a_change_are_stale_and_open_files_keep_their_bytes(tmp_path, packed):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else 0) as archive:
        archive.writestr("f", b"old" * 100)
    tree = Archive(path, keep=Keep.NOT)
    node = resolve(tree, "f")
    file = opened(tree, node)
    (tmp_path / "new").write_bytes(b"new" * 1000)
    os.rename(tmp_path / "new", path)
    assert errno_of(tree.open, node) == errno.ESTALE
    assert file.pread(6, 0) == b"oldold"
    file.close()
    assert errno_of(tree.open, node) == errno.ESTALE


def packed(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000, 900_000])
def test_a_packed_member_is_unpacked_once(tmp_path, size, descriptors):
    data = os.urandom(size)
    tree = Archive(packed(tmp_path / "a.zip", {"f": data}), budget=BUDGET)
    node = resolve(tree, "f")
    assert [read(tree, node) for _ in range(3)] == [data] * 3
    assert tree.unpacked().unpacked == 1
    assert tree.unpacked().bytes == size
    tree.close()


def test_unpacked_bytes_cannot_be_changed(tmp_path):
    tree = Archive(packed(tmp_path / "a.zip", {"f": b"data"}))
    file = opened(tree, resolve(tree, "f"))
    (extent,) = file.extents
    assert errno_of(os.pwrite, extent.fd, b"x", 0) == errno.EPERM
    assert errno_of(os.ftruncate, extent.fd, 0) == errno.EPERM
    file.close()


def test_the_budget_gives_up_what_nobody_uses(tmp_path, descriptors):
    members = {f"{number}": bytes([number]) * 200_000 for number in range(10)}
    tree = Archive(packed(tmp_path / "a.zip", members), budget=BUDGET)
    for name, data in [*members.items()] * 2:
        assert read(tree, resolve(tree, name)) == data
        assert tree.unpacked().bytes <= BUDGET
    assert tree.unpacked().given_up >= 10
    tree.close()


def test_a_member_beyond_the_budget_is_enomem_with_a_reason(tmp_path):
    path = packed(tmp_path / "a.zip", {"a": bytes(700_000), "b": bytes(700_000), "c": bytes(10)})
    tree = Archive(path, budget=BUDGET)
    first = opened(tree, resolve(tree, "a"))
    assert errno_of(tree.open, resolve(tree, "b")) == errno.ENOMEM
    assert tree.unpacked().reasons == {
        "no room in the budget of 1048576 bytes for unpacked members": 1
    }
    assert read(tree, resolve(tree, "c")) == bytes(10)
    first.close()
    assert read(tree, resolve(tree, "b")) == bytes(700_000)


def test_archives_with_one_budget_give_up_for_one_another(tmp_path, descriptors):
    budget = UnpackBudget(BUDGET)
    data = {name: name.encode() * 700_000 for name in "ab"}
    trees = {
        name: Archive(packed(tmp_path / name, {"f": data[name]}), budget=budget) for name in "ab"
    }
    for name in "aba":
        assert read(trees[name], resolve(trees[name], "f")) == data[name]
        assert sum(tree.unpacked().bytes for tree in trees.values()) == 700_000
    assert [trees[name].unpacked().given_up for name in "ab"] == [1, 1]
    held = opened(trees["a"], resolve(trees["a"], "f"))
    assert errno_of(trees["b"].open, resolve(trees["b"], "f")) == errno.ENOMEM
    held.close()
    assert read(trees["a"], resolve(trees["a"], "f")) == data["a"]
    assert trees["a"].unpacked().given_up == 1
    trees["a"].close()
    assert read(trees["b"], resolve(trees["b"], "f")) == data["b"]
    trees["b"].close()


def test_a_share_of_the_descriptors_is_enough(tmp_path, monkeypatch, descriptors):
    monkeypatch.setattr(_budget.resource, "getrlimit", lambda _: (40, 40))
    members = {f"{number}": b"%d" % number for number in range(60)}
    tree = Archive(packed(tmp_path / "a.zip", members))
    for name, data in members.items():
        assert read(tree, resolve(tree, name)) == data
        assert tree.unpacked().members <= 10
    tree.close()


@pytest.mark.parametrize("size", [1000, 500_000])
def test_a_damaged_member_is_eio_for_itself_alone(tmp_path, size, descriptors):
    path = packed(tmp_path / "a.zip", {"bad": os.urandom(size), "good": b"good"})
    data = bytearray(path.read_bytes())
    data[size // 2] ^= 1
    path.write_bytes(data)
    tree = Archive(path)
    node = resolve(tree, "bad")
    for _ in range(2):
        assert errno_of(opened, tree, node) == errno.EIO
    assert sum(tree.unpacked().reasons.values()) == 1
    assert tree.unpacked().bytes == 0
    assert read(tree, resolve(tree, "good")) == b"good"
    tree.close()


def test_a_tree_may_be_closed_while_a_member_is_being_unpacked(tmp_path, monkeypatch):
    tree = Archive(packed(tmp_path / "a.zip", {"f": bytes(5_000_000)}))
    closed = threading.Event()
    real = _unpacked.unpack

    def slow(*arguments):
        assert closed.wait(20)
        real(*arguments)

    monkeypatch.setattr(_unpacked, "unpack", slow)
    with pytest.raises(BlockingIOError):
        tree.open(resolve(tree, "f"))
    tree.close()
    closed.set()
    assert eventually(lambda: not tree._budget.threads)
    assert tree.unpacked().bytes == tree.unpacked().members == 0


def test_statfs_says_how_large_the_archive_is(tmp_path):
    path = write(tmp_path / "a.tar", member("a", data=bytes(100_000)))
    found = Archive(path).statfs()
    assert found.blocks * found.bsize >= os.stat(path).st_size
    assert (found.bfree, found.files, found.namemax) == (0, 1, 255)
