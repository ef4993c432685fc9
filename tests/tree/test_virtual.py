"""A virtual tree without a mount: names, bytes, attributes, errnos and identity of nodes."""

import errno
import logging
import os
import socket
import stat
import subprocess
import time

import pytest

from tests.support import eventually, requires
from zcfuse.tree import (
    HOLE,
    WHOLE_FILE,
    Bytes,
    Computed,
    Concat,
    Dir,
    File,
    Listing,
    Mirror,
    Slice,
    Symlink,
    VirtualTree,
    Who,
    Zeros,
)

ACL = b"system.posix_acl_access"
# The first small content creates the shared memfd, so it is not counted as a test's descriptor.
FIRST = Bytes(b"first")
ME = Who(os.getuid(), os.getgid(), os.getpid())


def write(path, data):
    path.write_bytes(data)
    return str(path)


def find(tree, path):
    node, attributes = tree.root, tree.attributes(tree.root)
    for name in path.split("/"):
        node, attributes = tree.lookup(node, os.fsencode(name))
    return node, attributes


def shown(entry, **others):
    """A tree with `entry` as "name", its node and its attributes."""
    tree = VirtualTree(Dir({"name": entry, **others}))
    return tree, *find(tree, "name")


def content(tree, node):
    opened = tree.open(node)
    try:
        return opened.pread(1 << 30, 0)
    finally:
        opened.close()


def failure(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    raise AssertionError("it did not fail")


async def read(offset, size):
    return bytes(size)


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "data", bytes(range(200)))


def test_the_pieces_of_a_file_are_the_bytes_of_their_places(data, tmp_path, descriptors):
    other = write(tmp_path / "other", b"other")
    raw = bytes(range(200))
    for entry, wanted in (
        (File(data), raw),
        (Slice(data, 10, 20), raw[10:30]),
        (Slice(data, 190, 20), raw[190:]),
        (Slice(data, 300, 20), b""),
        (Slice(data, 150), raw[150:]),
        (Slice(Bytes(b"hello"), 1, 3), b"ell"),
        (Concat([data, Zeros(3), other]), raw + bytes(3) + b"other"),
        (Concat([Slice(data, 0, 2), Slice(data, 2, 2), Slice(data, 9, 1)]), raw[:4] + raw[9:10]),
        (Slice(Concat([other, Slice(data, 5, 5)]), 3, 4), b"er" + raw[5:7]),
        (Slice(Slice(Concat([data, other]), 150), 40, 20), raw[190:] + b"other"),
        (Slice(Zeros(1 << 60), 1 << 59, 5), bytes(5)),
        (Concat([]), b""),
        (Zeros(0), b""),
        (Bytes(b""), b""),
        (Concat([Bytes(b"a"), Bytes(b""), Bytes(b"b")]), b"ab"),
    ):
        tree, node, attributes = shown(entry)
        assert (content(tree, node), attributes.size) == (wanted, len(wanted))
        assert tree.attributes(node) == attributes


def test_a_part_that_is_too_short_ends_the_whole_so_that_nothing_is_misplaced(data):
    raw = bytes(range(200))
    tree, node, attributes = shown(Concat([Slice(data, 190, 20), Bytes(b"behind")]))
    assert (content(tree, node), attributes.size) == (raw[190:], 10)
    within = Slice(Slice(data, 180, 20), 15, 10)
    tree, node, _ = shown(Concat([within, Bytes(b"behind")]))
    assert content(tree, node) == raw[195:]


def test_what_changes_while_it_is_open_is_never_shown_at_another_offset(data, tmp_path):
    tree, node, _ = shown(Concat([data, Bytes(b"behind")]))
    opened = tree.open(node)
    with open(data, "ab") as file:
        file.write(b"more")
    assert opened.pread(1000, 198) == bytes([198, 199]) + b"behind"
    os.truncate(data, 100)
    assert opened.pread(1000, 90) == bytes(range(90, 100))
    assert opened.pread(3, 200) == b"beh"
    assert opened.attributes().size == 100
    opened.close()
    opened.close()


def test_extents_are_what_a_file_is_made_of(data):
    tree, node, _ = shown(Concat([Slice(data, 0, 10), Slice(data, 10, 5), Zeros(7), data]))
    opened = tree.open(node)
    first, hole, last = opened.extents
    assert (first.offset, first.length, last.offset, last.length) == (0, 15, 0, WHOLE_FILE)
    assert (hole.fd, hole.length) == (HOLE, 7)
    assert first.fd == last.fd >= 0
    opened.close()
    assert opened.extents[0].fd == -1


@pytest.mark.parametrize("whole", ["File", "Concat", "Slice", "Bytes"])
def test_a_whole_file_may_pass_through_and_grow(data, whole):
    entry = {
        "File": File(data),
        "Concat": Concat([data]),
        "Slice": Slice(data, 0),
        "Bytes": Bytes(bytes(1 << 20)),
    }[whole]
    tree, node, _ = shown(entry)
    opened = tree.open(node)
    assert [(one.offset, one.length) for one in opened.extents] == [(0, WHOLE_FILE)]
    if whole != "Bytes":
        with open(data, "ab") as file:
            file.write(b"more")
        assert opened.pread(10, 200) == b"more"
        assert opened.attributes().size == 204
    opened.close()


def test_attributes_are_those_of_the_file_behind_but_for_owner_and_inode(data):
    os.chmod(data, 0o4640)
    os.utime(data, ns=(1_000_000_001, 2_000_000_002))
    for entry in (File(data), Slice(data, 1, 2), Concat([data, Zeros(3)])):
        _, _, found = shown(entry)
        assert found.mode == stat.S_IFREG | 0o640
        assert (found.uid, found.gid, found.nlink) == (os.geteuid(), os.getegid(), 1)
        assert (found.atime_ns, found.mtime_ns) == (1_000_000_001, 2_000_000_002)
    assert shown(File(data))[2].blocks == os.stat(data).st_blocks


def test_a_concat_may_be_read_by_those_who_may_read_all_of_it(data, tmp_path):
    other = write(tmp_path / "other", b"")
    os.chmod(data, 0o644)
    os.chmod(other, 0o750)
    assert shown(Concat([data, other]))[2].mode & 0o7777 == 0o640


def test_what_has_no_file_behind_it_has_modes_of_its_own():
    before = time.time_ns()
    for entry, mode in (
        (Bytes(b"x"), stat.S_IFREG | 0o444),
        (Zeros(1), stat.S_IFREG | 0o444),
        (Computed(1, read), stat.S_IFREG | 0o444),
        (Symlink("target"), stat.S_IFLNK | 0o777),
        (Dir({"a": Dir(), "b": Bytes(b"")}), stat.S_IFDIR | 0o555),
    ):
        tree, node, found = shown(entry)
        assert found.mode == mode
        assert found.uid == os.geteuid()
        assert before - 10**9 < found.mtime_ns <= time.time_ns()
        assert tree.attributes(node) == found
    assert found.nlink == 3


def test_attributes_can_be_given(data):
    given = {"mode": 0o1234, "uid": 5, "gid": 6, "mtime": 1.5}
    for entry in (File(data, **given), Dir(**given), Symlink("x", **given), Bytes(b"", **given)):
        _, _, found = shown(entry)
        assert found.mode & 0o7777 == 0o1234
        assert (found.uid, found.gid, found.mtime_ns) == (5, 6, 1_500_000_000)


def test_a_time_that_was_given_does_not_hide_a_change_of_the_bytes(data, tmp_path):
    other = write(tmp_path / "other", b"other")
    tree, node, _ = shown(Concat([data, other], mtime=5))
    opened = tree.open(node)
    seen = [opened.version()]
    for path in (data, other):
        os.utime(path, (1, 1))
        seen.append(opened.version())
    assert len(set(seen)) == 3
    assert opened.attributes().mtime_ns == 5_000_000_000
    opened.close()


def test_a_method_makes_computed_bytes_of_one_file(data):
    class Maker:
        async def read(self, offset, size):
            return bytes(size)

    maker = Maker()
    assert Computed(1, maker.read).key() == Computed(1, maker.read).key()
    assert Computed(1, maker.read).key() != Computed(1, Maker().read).key()


def test_a_link_is_read_and_nothing_else_is(data):
    tree, node, attributes = shown(Symlink(b"a/\xff"))
    assert (tree.readlink(node), attributes.size) == (b"a/\xff", 3)
    assert failure(tree.open, node) == "ELOOP"
    assert failure(tree.readlink, tree.root) == "EINVAL"
    assert failure(tree.open, tree.root) == "EISDIR"


def test_names_are_looked_up_as_the_kernel_does(data):
    tree, node, _ = shown(File(data), dir=Dir())
    directory, _ = find(tree, "dir")
    assert tree.lookup(directory, b"..")[0] is tree.root
    assert tree.lookup(tree.root, b"..")[0] is tree.root
    assert tree.lookup(directory, b".")[0] is directory
    assert failure(tree.lookup, tree.root, b"missing") == "ENOENT"
    assert failure(tree.lookup, tree.root, b"x" * 256) == "ENAMETOOLONG"
    assert failure(tree.lookup, node, b"x") == "ENOTDIR"


def test_a_node_is_the_same_at_each_look_and_on_each_mount(data):
    entries = {"a": File(data), "b": File(data), "dir": Dir({"a": File(data)}, key=1)}
    trees = [VirtualTree(Dir(entries)) for _ in range(2)]
    paths = ["a", "b", "dir", "dir/a"]
    inos = [[find(tree, path)[1].ino for path in paths] for tree in (*trees, trees[0])]
    assert inos[0] == inos[1] == inos[2]
    assert len({*inos[0], trees[0].attributes(trees[0].root).ino}) == 5
    assert find(trees[0], "a")[0].identity == find(trees[0], "a")[0].identity


def test_a_replaced_file_is_another_node(data, tmp_path):
    directory = Dir({"name": File(data)})
    tree = VirtualTree(directory)
    node, old = find(tree, "name")
    directory.replace("name", Slice(data, 0, 5))
    assert find(tree, "name")[1].ino != old.ino
    assert tree.attributes(node) == old
    assert content(tree, node) == bytes(range(200))


def test_a_path_that_leads_to_another_file_by_now_is_stale_and_looked_up_anew(data, tmp_path):
    tree, node, old = shown(Concat([data, Zeros(1)]))
    os.rename(write(tmp_path / "fresh", b"fresh"), data)
    assert failure(tree.open, node) == "ESTALE"
    assert failure(tree.attributes, node) == "ESTALE"
    node, new = find(tree, "name")
    assert (content(tree, node), new.ino == old.ino) == (b"fresh\0", False)


def test_a_file_that_is_open_stays_what_it_was(data, tmp_path):
    tree, node, _ = shown(File(data))
    opened = tree.open(node)
    os.rename(write(tmp_path / "fresh", b"fresh"), data)
    assert opened.pread(3, 0) == bytes(range(3))
    assert opened.attributes().size == 200
    opened.close()


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path, caplog, descriptors):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name, number in (
        (tmp_path / "fifo", "EINVAL"),
        (tmp_path / "socket", "EINVAL"),
        ("/dev/null", "EINVAL"),
        (tmp_path, "EISDIR"),
        (tmp_path / "missing", "ENOENT"),
        (tmp_path / "fifo" / "below", "ENOTDIR"),
    ):
        tree = VirtualTree(Dir({"name": Concat([File(name)])}))
        assert failure(tree.lookup, tree.root, b"name") == number
    assert "is a FIFO, not a regular file" in caplog.text


@pytest.mark.parametrize("swapped", ["fifo", "directory", "socket"])
def test_a_file_that_was_swapped_for_something_else_does_not_block(data, swapped):
    tree, node, _ = shown(File(data))
    os.unlink(data)
    if swapped == "fifo":
        os.mkfifo(data)
    elif swapped == "directory":
        os.mkdir(data)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(data)
    assert failure(tree.open, node) == ("EISDIR" if swapped == "directory" else "EINVAL")


def test_symbolic_links_to_a_file_are_followed(data, tmp_path):
    os.symlink("data", tmp_path / "link")
    tree, node, _ = shown(File(tmp_path / "link"))
    assert len(content(tree, node)) == 200
    os.symlink("loop", tmp_path / "loop")
    tree = VirtualTree(Dir({"name": File(tmp_path / "loop")}))
    assert failure(tree.lookup, tree.root, b"name") == "ELOOP"


def test_a_listing_shows_what_was_there_without_what_is_gone(data, tmp_path):
    directory = Dir({str(n): Bytes(b"%d" % n) for n in range(5)})
    directory.add("missing", File(tmp_path / "missing"))
    directory.add("broken", File(tmp_path))
    tree = VirtualTree(directory)
    listing = tree.listing(tree.root)
    names = [name for _, name, _, _ in listing.entries(0)]
    assert names == [b".", b"..", b"0", b"1", b"2", b"3", b"4", b"broken"]
    directory.remove("1")
    directory.add("5", Bytes(b""))
    assert [(at, name) for at, name, _, _ in listing.entries(2)] == [
        (3, b"0"),
        (5, b"2"),
        (6, b"3"),
        (7, b"4"),
        (9, b"broken"),
    ]
    listing.close()
    assert list(listing.entries(2)) == []


def test_a_mirror_is_shown_below_a_directory_with_all_that_it_has(data, tmp_path):
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    write(source / "dir" / "file", b"mirrored")
    os.setxattr(source / "dir" / "file", b"user.name", b"value")
    mirror = Mirror(source)
    tree = VirtualTree(Dir({"m": mirror, "n": mirror}))
    node, attributes = find(tree, "m/dir/file")
    assert (content(tree, node), attributes.ino) == (
        b"mirrored",
        os.stat(source / "dir" / "file").st_ino,
    )
    assert tree.getxattr(node, b"user.name") == b"value"
    assert tree.attributes(node) == attributes
    top, _ = find(tree, "m")
    above = [(name, node) for _, name, node, _ in tree.listing(top).entries(0)]
    assert above[1] == (b"..", tree.root)
    assert {name for name, _ in above} == {b".", b"..", b"dir"}
    assert failure(tree.lookup, top, b"missing") == "ENOENT"
    # Two places are two directories: the kernel allows each only one parent.
    assert find(tree, "m/dir")[0].identity == find(tree, "m/dir")[0].identity
    assert find(tree, "m/dir")[0].identity != find(tree, "n/dir")[0].identity
    lease = tree.lease_of(top)
    assert os.path.samestat(os.fstat(lease.fd), os.stat(source))
    assert tree.lease_of(tree.root).described is not None
    assert tree.lease_of(find(tree, "m/dir")[0]) is None
    mirror.close()


async def test_a_dynamic_directory_is_asked_with_who_asks():
    class Home(Dir):
        async def lookup(self, name, who):
            return Bytes(b"%s of %d" % (name.encode(), who.uid)) if name == "file" else None

        async def list(self, who):
            return ["file", "gone", "file"]

    tree = VirtualTree(Dir({"home": Home()}))
    home, attributes = find(tree, "home")
    assert (home.volatile, attributes.nlink) == (True, 1)
    found = [await tree.lookup_for(home, b"file", Who(uid, 0, 1)) for uid in (1, 2, 1)]
    assert [content(tree, node) for node, _ in found] == [b"file of 1", b"file of 2", b"file of 1"]
    assert found[0][0].identity == found[2][0].identity != found[1][0].identity
    assert found[0][1].ino != found[1][1].ino
    with pytest.raises(FileNotFoundError):
        await tree.lookup_for(home, b"missing", ME)
    listing = await tree.listing_for(home, Who(7, 0, 1))
    names = {name: node for _, name, node, _ in listing.entries(0)}
    assert list(names) == [b".", b"..", b"file"]
    assert content(tree, names[b"file"]) == b"file of 7"


async def test_a_mapping_spares_lookups_and_is_asked_for_what_it_means():
    class Lazy(dict[str, object]):
        def __getitem__(self, name):
            if name == "wrong":
                raise LookupError("out of order")
            return Bytes(name.encode())

    class Listed(Dir):
        async def list(self, who):
            return Lazy.fromkeys(["a", "wrong", "b"])

        async def lookup(self, name, who):
            raise AssertionError("not to be asked")

    tree = VirtualTree(Dir({"name": Listed()}))
    node, _ = find(tree, "name")
    listing = await tree.listing_for(node, ME)
    found = {name: node for _, name, node, _ in listing.entries(2)}
    assert (content(tree, found[b"a"]), found[b"wrong"].volatile) == (b"a", True)


@pytest.mark.parametrize("answer", ["text", 3, ["a/b"], ["."], [3], object()])
async def test_a_listing_that_is_none_is_the_policys_fault(answer):
    class Wrong(Dir):
        async def list(self, who):
            return answer

    tree = VirtualTree(Dir({"name": Wrong()}))
    node, _ = find(tree, "name")
    with pytest.raises((TypeError, ValueError)):
        await tree.listing_for(node, ME)


async def test_a_name_that_cannot_be_looked_up_is_listed_all_the_same(caplog):
    class Flaky(Dir):
        async def list(self, who):
            return ["denied", "broken", "fine", "gone"]

        async def lookup(self, name, who):
            if name == "denied":
                raise PermissionError(errno.EACCES, "no")
            if name == "broken":
                raise RuntimeError("out of order")
            if name == "gone":
                raise FileNotFoundError(errno.ENOENT, "gone")
            return Bytes(b"fine")

    tree = VirtualTree(Dir({"name": Flaky()}))
    node, _ = find(tree, "name")
    with caplog.at_level(logging.ERROR):
        listing = await tree.listing_for(node, ME)
    assert isinstance(listing, Listing)
    found = {name: node.volatile for _, name, node, _ in listing.entries(2)}
    assert found == {b"denied": True, b"broken": True, b"fine": False}
    assert "RuntimeError: out of order" in caplog.text


def test_content_may_be_made_on_demand_without_awaiting():
    class Numbers(Dir):
        def get(self, name):
            return Bytes(name) if name.isdigit() else None

        def names(self):
            return [b"%d" % n for n in range(1000)]

    tree = VirtualTree(Dir({"numbers": Numbers()}))
    numbers, attributes = find(tree, "numbers")
    assert (numbers.volatile, attributes.nlink) == (False, 1)
    assert content(tree, find(tree, "numbers/77")[0]) == b"77"
    assert failure(tree.lookup, numbers, b"x") == "ENOENT"
    assert len(list(tree.listing(numbers).entries(0))) == 1002


async def test_a_directory_made_anew_each_time_is_one_by_its_key():
    class Users(Dir):
        async def lookup(self, name, who):
            return Dir({"file": Bytes(name.encode())}, key=name)

    tree = VirtualTree(Dir({"users": Users()}))
    users, _ = find(tree, "users")
    first, _ = await tree.lookup_for(users, b"me", ME)
    second, _ = await tree.lookup_for(users, b"me", ME)
    assert first.identity == second.identity
    first.merge(second)
    assert first.entry is second.entry


def test_changes_are_told_wherever_the_directory_is_shown():
    changed = []
    directory = Dir({"old": Bytes(b"")})
    trees = [VirtualTree(Dir({"a": directory, "b": directory})) for _ in range(2)]
    nodes = [find(tree, path)[0] for tree in trees for path in ("a", "b")]
    for tree in trees:
        tree.watch(lambda node, name: changed.append((node, name)))
    directory.add("new", Bytes(b""))
    directory.replace("old", Bytes(b"x"))
    directory.remove("old")
    directory.changed("else")
    assert len(changed) == 16
    assert {id(node) for node, _ in changed} == {id(node) for node in nodes}
    assert {name for _, name in changed} == {b"new", b"old", b"else"}
    trees[0].watch(None)
    del nodes[2:]
    changed.clear()
    directory.remove("new")
    assert changed == []


def test_the_time_of_a_directory_is_that_of_its_last_change():
    directory = Dir()
    tree = VirtualTree(directory)
    before = tree.attributes(tree.root).mtime_ns
    assert eventually(lambda: time.time_ns() > before)
    directory.add("name", Bytes(b""))
    assert tree.attributes(tree.root).mtime_ns > before


def test_statfs_and_extended_attributes_of_what_lies_on_no_filesystem(data):
    tree, node, _ = shown(File(data))
    assert tree.statfs().namemax == 255
    assert failure(tree.getxattr, node, b"user.name") == "ENODATA"
    assert tree.listxattr(node) == ()
    assert tree.access(node, os.R_OK, 0, [0])


def set_acl(path, text):
    subprocess.run(["setfacl", "--set", text, path], check=True, timeout=10)
    return os.getxattr(path, ACL)


@requires("acl")
def test_a_file_and_its_pieces_carry_the_acl_of_their_file(data, tmp_path):
    acl = set_acl(data, "u::rw,u:1234:-,g::r,m::r,o::r")
    other = write(tmp_path / "other", b"other")
    set_acl(other, "u::rw,u:1234:-,g::r,m::r,o::r")
    for entry in (File(data), Slice(data, 1, 2), Concat([data, Zeros(3)]), Concat([data, other])):
        tree, node, _ = shown(entry)
        assert tree.getxattr(node, ACL) == acl
        assert tree.listxattr(node) == (ACL,)


@requires("acl")
def test_files_of_different_acls_are_for_their_owner_alone(data, tmp_path):
    set_acl(data, "u::rw,u:1234:-,g::r,m::r,o::r")
    tree, node, attributes = shown(Concat([data, write(tmp_path / "other", b"other")]))
    assert attributes.mode & 0o077 == 0
    assert tree.listxattr(node) == ()


@requires("acl")
def test_a_mode_that_was_given_takes_the_place_of_the_acl(data):
    set_acl(data, "u::rw,u:1234:-,g::r,m::r,o::r")
    tree, node, attributes = shown(File(data, mode=0o444))
    assert attributes.mode & 0o777 == 0o444
    assert tree.listxattr(node) == ()
    assert failure(tree.getxattr, node, ACL) == "ENODATA"


def test_parts_that_are_together_too_long_hide_no_other_name():
    huge = Zeros(2**62)
    tree = VirtualTree(Dir({"a": huge, "b": Concat([huge, huge]), "c": huge}))
    assert failure(tree.lookup, tree.root, b"b") == "EOVERFLOW"
    listed = [name for _, name, *_ in tree.listing(tree.root).entries(2)]
    assert listed == [b"a", b"b", b"c"]


@pytest.mark.parametrize("mtime", [2**63, -(2**63) - 1, float("inf"), float("nan"), 1e300])
def test_a_time_that_fits_no_file_is_refused(mtime):
    with pytest.raises(ValueError, match="mtime="):
        Zeros(1, mtime=mtime)
