import errno
import os
import socket
import stat

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from zcfuse.tree import WHOLE_FILE, Mirror, Node

pytestmark = pytest.mark.usefixtures("descriptors")

NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def resolve(tree, path):
    node = tree.root
    for name in os.fsencode(path).split(b"/"):
        node, _ = tree.lookup(node, name)
    return node


def errno_of(call, *arguments):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call(*arguments)
    return caught.value.errno


def as_stat(attributes):
    return (
        attributes.ino,
        attributes.mode,
        attributes.nlink,
        attributes.uid,
        attributes.gid,
        attributes.rdev,
        attributes.size,
        attributes.blksize,
        attributes.blocks,
        attributes.mtime_ns,
        attributes.ctime_ns,
    )


def from_os(path):
    found = os.lstat(path)
    return (
        found.st_ino,
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        found.st_size,
        found.st_blksize,
        found.st_blocks,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"x" * 5000),
        lambda path: path.mkdir(mode=0o2711),
        lambda path: path.symlink_to("/nowhere/at/all"),
        os.mkfifo,
        make_socket,
    ],
    ids=["file", "directory", "symlink", "fifo", "socket"],
)
def test_attributes_are_those_of_lstat_for_every_type(source, mirror, make):
    make(source / "it")
    node, found = mirror.lookup(mirror.root, b"it")
    assert as_stat(found) == from_os(source / "it")
    assert mirror.attributes(node) == found


def test_times_before_1970_keep_their_nanoseconds(source, mirror):
    (source / "old").touch()
    os.utime(source / "old", ns=(-1_500_000_001, -86_400_000_000_123))
    _, found = mirror.lookup(mirror.root, b"old")
    assert (found.atime_ns, found.mtime_ns) == (-1_500_000_001, -86_400_000_000_123)


@given(name=NAMES, content=st.binary(max_size=50))
@example(name=b"\xff\xfe", content=b"")
@example(name=b"\n", content=b"x")
@example(name=b"n" * 255, content=b"x")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_of_any_bytes_can_be_listed_looked_up_and_read(source, mirror, name, content):
    path = os.fsencode(source) + b"/" + name
    with open(path, "wb") as file:
        file.write(content)
    try:
        listing = mirror.listing(mirror.root)
        assert [entry[1] for entry in listing.entries(0)] == [b".", b"..", name]
        backing = mirror.open(mirror.lookup(mirror.root, name)[0])
        assert backing.pread(100, 0) == content
        backing.close()
    finally:
        os.unlink(path)


def test_a_missing_name_is_enoent_and_a_missing_directory_estale(source, mirror):
    (source / "d").mkdir()
    directory = resolve(mirror, "d")
    assert errno_of(mirror.lookup, directory, b"no") == errno.ENOENT
    (source / "d").rmdir()
    assert errno_of(mirror.lookup, directory, b"no") == errno.ESTALE


def test_a_name_below_a_file_is_estale_or_enotdir(source, mirror):
    (source / "f").touch()
    assert errno_of(mirror.lookup, resolve(mirror, "f"), b"x") in (errno.ENOTDIR, errno.ESTALE)


def test_an_overlong_name_is_enametoolong(mirror):
    assert errno_of(mirror.lookup, mirror.root, b"n" * 256) == errno.ENAMETOOLONG


@pytest.mark.parametrize("name", [b"", b"a/b", b"/etc", b"../x", b"a\0b"])
def test_a_name_that_is_none_is_not_there(source, mirror, name):
    (source / "a").mkdir()
    (source / "a/b").touch()
    (source.parent / "x").touch()
    assert errno_of(mirror.lookup, mirror.root, name) == errno.ENOENT


def test_dot_names_stay_beneath_the_root(source, mirror):
    (source / "d").mkdir()
    directory = resolve(mirror, "d")
    assert mirror.lookup(mirror.root, b"..")[0] is mirror.root
    assert mirror.lookup(directory, b"..")[0] is mirror.root
    assert mirror.lookup(directory, b".")[0] is directory


def test_hard_links_have_one_identity_and_one_ino(source, mirror):
    (source / "one").write_text("x")
    os.link(source / "one", source / "two")
    (one, attributes), (two, others) = (
        mirror.lookup(mirror.root, b"one"),
        mirror.lookup(mirror.root, b"two"),
    )
    assert one.identity == two.identity
    assert attributes.ino == others.ino
    assert attributes.nlink == 2


def test_a_hard_link_is_still_reached_when_its_newest_name_is_gone(source, mirror):
    (source / "one").write_text("x")
    os.link(source / "one", source / "two")
    node = resolve(mirror, "one")
    node.merge(resolve(mirror, "two"))
    (source / "two").unlink()
    assert mirror.attributes(node).nlink == 1


def test_a_renamed_file_is_estale_until_it_is_found_again(source, mirror):
    (source / "before").write_text("x")
    node = resolve(mirror, "before")
    (source / "before").rename(source / "after")
    assert errno_of(mirror.attributes, node) == errno.ESTALE
    node.merge(resolve(mirror, "after"))
    assert mirror.attributes(node).size == 1


def test_a_replaced_file_is_estale_even_with_the_inode_number_reused(source, mirror):
    path = source / "f"
    path.write_text("x")
    node = resolve(mirror, "f")
    for _ in range(20):
        path.unlink()
        path.write_text("y")
        assert errno_of(mirror.attributes, node) == errno.ESTALE
        assert errno_of(mirror.open, node) == errno.ESTALE
        assert resolve(mirror, "f").identity != node.identity


def test_remembered_parents_that_form_a_ring_end_in_estale(source, mirror):
    (source / "c/p").mkdir(parents=True)
    outer, inner = resolve(mirror, "c"), resolve(mirror, "c/p")
    inner.parent, inner.name = outer, b"p"
    outer.parent, outer.name = inner, b"c"
    assert errno_of(mirror.attributes, inner) == errno.ESTALE


def test_names_of_one_inode_that_are_remembered_are_bounded(source, mirror):
    (source / "0").touch()
    node = resolve(mirror, "0")
    for number in range(1, 100):
        os.link(source / "0", source / str(number))
        node.merge(resolve(mirror, str(number)))
    assert 1 < len(list(node.paths())) < 20


@pytest.mark.parametrize("target", ["outside", "../outside", None])
def test_a_directory_swapped_for_a_symlink_is_never_followed(source, mirror, target):
    (source / "d").mkdir()
    (source / "d/secret").write_text("inside")
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("outside")
    directory, file = resolve(mirror, "d"), resolve(mirror, "d/secret")
    (source / "d").rename(source / "e")
    (source / "d").symlink_to(outside if target is None else target)
    for call in (mirror.open, mirror.attributes, mirror.listxattr):
        assert errno_of(call, file) == errno.ESTALE
    assert errno_of(mirror.lookup, directory, b"secret") == errno.ESTALE
    assert errno_of(mirror.listing, directory) == errno.ESTALE


def test_a_directory_swapped_for_a_symlink_to_itself_is_not_followed_either(source, mirror):
    (source / "d").mkdir()
    (source / "d/f").touch()
    file = resolve(mirror, "d/f")
    (source / "d").rename(source / "e")
    (source / "d").symlink_to("e")
    assert errno_of(mirror.open, file) == errno.ESTALE


def test_a_file_swapped_for_a_symlink_is_not_opened(source, mirror):
    (source / "f").write_text("x")
    (source / "g").write_text("y")
    node = resolve(mirror, "f")
    (source / "f").unlink()
    (source / "f").symlink_to("g")
    assert errno_of(mirror.open, node) == errno.ESTALE


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [os.mkfifo, make_socket], ids=["fifo", "socket"])
def test_a_file_swapped_for_something_that_blocks_is_estale_at_once(source, mirror, make):
    (source / "f").write_text("x")
    node = resolve(mirror, "f")
    (source / "f").unlink()
    make(source / "f")
    assert errno_of(mirror.open, node) == errno.ESTALE


def test_opening_what_is_no_regular_file_is_refused(source, mirror):
    (source / "d").mkdir()
    os.mkfifo(source / "p")
    assert errno_of(mirror.open, resolve(mirror, "d")) == errno.EISDIR
    assert errno_of(mirror.open, resolve(mirror, "p")) == errno.ESTALE


def test_a_path_longer_than_path_max_is_reached(source, mirror, request):
    depth, name = 40, b"d" * 200
    fds = [os.open(source, os.O_RDONLY)]
    for _ in range(depth):
        os.mkdir(name, dir_fd=fds[-1])
        fds.append(os.open(name, os.O_RDONLY, dir_fd=fds[-1]))
    file = os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1])
    os.write(file, b"deep")
    for fd in (file, *fds):
        os.close(fd)
    node = mirror.root
    for _ in range(depth):
        node, _ = mirror.lookup(node, name)
    assert [entry[1] for entry in mirror.listing(node).entries(0)] == [b".", b"..", b"f"]
    leaf, _ = mirror.lookup(node, b"f")
    backing = mirror.open(leaf)
    assert backing.pread(10, 0) == b"deep"
    assert mirror.attributes(leaf) == backing.attributes()
    backing.close()


def test_an_open_file_outlives_its_name_and_is_one_extent(source, mirror):
    (source / "f").write_bytes(b"0123456789")
    backing = mirror.open(resolve(mirror, "f"))
    (source / "f").unlink()
    assert backing.attributes().nlink == 0
    assert backing.pread(4, 3) == b"3456"
    (extent,) = backing.extents
    assert (extent.offset, extent.length) == (0, WHOLE_FILE)
    assert os.pread(extent.fd, 2, 8) == b"89"
    backing.close()


def test_a_closed_file_is_ebadf_and_not_a_stranger(source, mirror):
    (source / "f").write_bytes(b"x")
    backing = mirror.open(resolve(mirror, "f"))
    backing.close()
    backing.close()
    assert backing.extents[0].fd == -1
    assert errno_of(backing.pread, 1, 0) == errno.EBADF


def test_reading_leaves_the_time_of_access_alone(source, mirror):
    (source / "f").write_bytes(b"x")
    os.utime(source / "f", ns=(1, 1))
    backing = mirror.open(resolve(mirror, "f"))
    backing.pread(1, 0)
    assert backing.attributes().atime_ns == 1
    backing.close()


def test_readlink_returns_the_bytes_of_the_target(source, mirror):
    os.symlink(b"\xff/../x y", os.fsencode(source) + b"/l")
    assert mirror.readlink(resolve(mirror, "l")) == b"\xff/../x y"
    (source / "f").touch()
    assert errno_of(mirror.readlink, resolve(mirror, "f")) in (errno.EINVAL, errno.ENOENT)


def test_extended_attributes_are_those_of_the_backing_file(source, mirror):
    (source / "f").touch()
    (source / "l").symlink_to("f")
    os.setxattr(source / "f", "user.colour", b"\x00red")
    node, link = resolve(mirror, "f"), resolve(mirror, "l")
    assert mirror.getxattr(node, b"user.colour") == b"\x00red"
    assert b"user.colour" in mirror.listxattr(node)
    assert b"user.colour" not in mirror.listxattr(link)
    assert errno_of(mirror.getxattr, node, b"user.none") == errno.ENODATA


def test_statfs_is_that_of_the_source(source, mirror):
    found, expected = mirror.statfs(), os.statvfs(source)
    assert (found.blocks, found.frsize, found.namemax) == (
        expected.f_blocks,
        expected.f_frsize,
        expected.f_namemax,
    )


def test_the_mirror_outlives_a_rename_of_its_source(source, mirror):
    (source / "f").write_text("x")
    source.rename(source.parent / "moved")
    assert mirror.attributes(resolve(mirror, "f")).size == 1


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "mask", "allowed"),
    [
        (0o600, 1000, 1, os.R_OK, True),
        (0o600, 1000, 1, os.W_OK, False),
        (0o640, 1, 100, os.R_OK, True),
        (0o640, 1, 1, os.R_OK, False),
        (0o604, 1, 1, os.R_OK, True),
        (0o077, 1000, 100, os.R_OK, False),
        (0o600, 0, 0, os.R_OK, True),
        (0o600, 0, 0, os.X_OK, False),
        (0o000, 1, 1, os.F_OK, True),
    ],
)
def test_access_goes_by_the_first_class_of_the_mode_that_fits(
    source, monkeypatch, mode, uid, gid, mask, allowed
):
    tree = Mirror(source)
    attributes = tree.attributes(tree.root)
    replaced = type(attributes)(1, stat.S_IFREG | mode, 1, 1000, 100, 0, 0, 4096, 0, 0, 0, 0)
    monkeypatch.setattr(tree, "attributes", lambda node: replaced)
    assert tree.access(tree.root, mask, uid, {gid}) is allowed
    tree.close()


def test_a_source_that_is_no_directory_is_an_error(source):
    (source / "f").touch()
    assert errno_of(Mirror, source / "f") == errno.ENOTDIR
    assert errno_of(Mirror, source / "none") == errno.ENOENT


def test_a_node_of_another_tree_is_a_programming_error(mirror):
    with pytest.raises(TypeError):
        mirror.attributes(Node())


# Leases


class Hiding(Mirror):
    """A mirror with a policy."""

    def lookup(self, directory, name):
        return super().lookup(directory, name)


class HidingInPrivate(Hiding):
    """A mirror that declares where its policy applies."""

    def keeps(self):
        return [b"private"]


class Closing(Mirror):
    """A subclass that answers as a mirror does."""

    def close(self):
        super().close()


class AskingWho(Mirror):
    """A mirror whose answers depend on the client."""

    def lookup_for(self, directory, name, who):
        return super().lookup_for(directory, name, who)


@pytest.mark.parametrize(
    ("kind", "granted"),
    [(AskingWho, False), (Mirror, True), (Closing, True), (Hiding, False), (HidingInPrivate, True)],
)
def test_a_mirror_grants_a_lease_unless_it_answers_in_its_own_way(source, kind, granted):
    tree = kind(source)
    assert (tree.lease() is not None) == granted
    tree.close()


def test_a_mirror_without_openat2_grants_no_lease(source):
    tree = Mirror(source, openat2=False)
    assert tree.lease() is None
    tree.close()
