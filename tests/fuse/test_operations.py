"""The operations over real directories and over trees that misbehave; no mount, a fake reply."""

import errno
import fcntl
import logging
import os
import signal
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fuse.fakes import (
    CONTEXT,
    OLD,
    ROOT,
    Reply,
    errno_of,
    listed,
    look_up,
    make_old,
)
from zcfuse.fuse import _nodes
from zcfuse.fuse._operations import Operations
from zcfuse.tree import BeingMadeError, Mirror, Node, Tree


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    return path


# Lookups and attributes


async def test_lookup_replies_the_backing_attributes_under_our_nodeid(source, operations):
    make_old(source / "f", "12345")
    entry = await operations.lookup(ROOT, b"f", CONTEXT)
    real = os.stat(source / "f")
    assert (entry.st_mode, entry.st_size, entry.st_blocks) == (
        real.st_mode,
        real.st_size,
        real.st_blocks,
    )
    assert (entry.st_mtime_ns, entry.st_atime_ns, entry.st_ctime_ns) == (OLD, OLD, real.st_ctime_ns)
    assert (entry.st_ino, entry.generation) == (2, 0)
    assert entry.entry_timeout == entry.attr_timeout == 7.5


async def test_a_missing_name_is_a_reply_that_may_be_cached(operations):
    entry = await operations.lookup(ROOT, b"missing", CONTEXT)
    assert (entry.st_ino, entry.entry_timeout) == (0, 7.5)
    assert operations.statistics().negative_lookups == 1
    assert operations.statistics().errors == {}


async def test_hard_links_share_a_nodeid(source, operations):
    (source / "one").touch()
    os.link(source / "one", source / "two")
    assert await look_up(operations, "one") == await look_up(operations, "two")


async def test_a_node_is_forgotten_with_its_last_lookup_and_its_number_never_used_again(
    source, operations, leases
):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    await look_up(operations, "f")
    await operations.forget([(nodeid, 1)])
    assert (await operations.getattr(nodeid, CONTEXT)).st_ino == nodeid
    await operations.forget([(nodeid, 1), (12345, 1), (ROOT, 1)])
    assert await errno_of(operations.getattr, nodeid, CONTEXT) == errno.ESTALE
    assert await look_up(operations, "f") == nodeid + 1
    assert set(leases.inos) == {ROOT, nodeid + 1}


async def test_the_data_path_is_told_real_inode_numbers(source, operations, leases):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    assert leases.inos == {ROOT: os.stat(source).st_ino, nodeid: os.stat(source / "f").st_ino}


async def test_a_replaced_file_gets_a_new_nodeid_and_the_old_one_is_estale(source, operations):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    (source / "f").unlink()
    (source / "f").touch()
    assert await errno_of(operations.getattr, nodeid, CONTEXT) == errno.ESTALE
    assert await look_up(operations, "f") != nodeid


async def test_attributes_of_an_open_file_outlive_its_name(source, operations):
    (source / "f").write_text("abc")
    nodeid = await look_up(operations, "f")
    opened = await operations.open(nodeid, os.O_RDONLY, CONTEXT)
    (source / "f").unlink()
    entry = await operations.getattr(nodeid, CONTEXT)
    assert (entry.st_size, entry.st_nlink) == (3, 0)
    await operations.release(opened.fh)
    assert await errno_of(operations.getattr, nodeid, CONTEXT) == errno.ESTALE


# Open files


async def test_opens_of_a_node_share_one_file_and_one_lease(source, operations, leases):
    (source / "f").write_text("abcdefgh")
    nodeid = await look_up(operations, "f")
    first = await operations.open(nodeid, os.O_RDONLY, CONTEXT)
    second = await operations.open(nodeid, os.O_RDONLY | os.O_DIRECT, CONTEXT)
    assert first.fh != second.fh
    assert leases.calls == [("install", nodeid, [b"abcd"])]
    await operations.release(first.fh)
    assert await operations.read(second.fh, 2, 3) == b"cde"
    assert operations.statistics().open_files == 1
    await operations.release(second.fh)
    assert leases.calls[1:] == [("revoke", nodeid)]
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(leases.fd)
    assert await errno_of(operations.read, second.fh, 0, 1) == errno.EBADF


async def test_a_lease_that_fails_costs_the_open_and_no_descriptor(source, operations, leases):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    before = os.listdir("/proc/self/fd")
    leases.fail = OSError(errno.ENOMEM, "no memory")
    assert await errno_of(operations.open, nodeid, os.O_RDONLY, CONTEXT) == errno.ENOMEM
    assert os.listdir("/proc/self/fd") == before
    assert operations.statistics().open_files == 0


async def test_pages_are_kept_only_if_size_and_mtime_are_as_at_the_last_open(source, operations):
    async def kept():
        opened = await operations.open(nodeid, os.O_RDONLY, CONTEXT)
        await operations.release(opened.fh)
        return bool(opened.keep_cache)

    make_old(source / "f", "one")
    nodeid = await look_up(operations, "f")
    assert [await kept(), await kept()] == [False, True]
    make_old(source / "f", "four")
    assert [await kept(), await kept()] == [False, True]
    os.utime(source / "f", ns=(OLD, OLD + 1))
    assert [await kept(), await kept()] == [False, True]
    os.chmod(source / "f", 0o600)
    assert await kept()


async def test_a_file_changed_a_moment_ago_is_not_trusted_to_be_the_same(source, operations):
    (source / "f").write_text("new")
    nodeid = await look_up(operations, "f")
    for _ in range(2):
        os.utime(source / "f")
        opened = await operations.open(nodeid, os.O_RDONLY, CONTEXT)
        assert not opened.keep_cache
        await operations.release(opened.fh)


async def test_direct_opens_bypass_the_page_cache(source):
    (source / "f").touch()
    tree = Mirror(source)
    operations = Operations(tree, cache_timeout=1, direct=True)
    opened = await operations.open(await look_up(operations, "f"), os.O_RDONLY, CONTEXT)
    assert opened.direct_io
    operations.close()
    tree.close()


async def test_reads_are_counted(source, operations):
    (source / "f").write_bytes(b"x" * 100)
    opened = await operations.open(await look_up(operations, "f"), os.O_RDONLY, CONTEXT)
    assert await operations.read(opened.fh, 90, 50) == b"x" * 10
    assert await operations.read(opened.fh, 100, 50) == b""
    statistics = operations.statistics()
    assert (statistics.read_requests, statistics.read_bytes) == (2, 10)
    assert statistics.replied_bytes == 10


async def test_close_closes_what_clients_left_open(source, operations, leases):
    (source / "f").touch()
    await operations.open(await look_up(operations, "f"), os.O_RDONLY, CONTEXT)
    await operations.opendir(ROOT, CONTEXT)
    operations.close()
    assert leases.calls[-1][0] == "revoke"
    statistics = operations.statistics()
    assert (statistics.open_files, statistics.open_handles, statistics.open_directories) == (
        0,
        0,
        0,
    )


async def test_an_open_waits_until_another_process_has_given_its_lease_up(source, operations):
    (source / "f").write_text("x")
    nodeid = await look_up(operations, "f")
    holder = os.open(source / "f", os.O_RDWR)
    asked = []

    def give_up(number, frame):
        asked.append(number)
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    previous = signal.signal(signal.SIGIO, give_up)
    try:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with trio.fail_after(5):
            await operations.open(nodeid, os.O_RDONLY, CONTEXT)
        assert asked
    finally:
        os.close(holder)
        signal.signal(signal.SIGIO, previous)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opens_that_would_change_the_file_are_refused(source, operations, flags):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    assert await errno_of(operations.open, nodeid, flags, CONTEXT) == errno.EROFS


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("setattr", (ROOT, None, None, None, CONTEXT)),
        ("mknod", (ROOT, b"x", 0o600, 0, CONTEXT)),
        ("mkdir", (ROOT, b"x", 0o700, CONTEXT)),
        ("unlink", (ROOT, b"x", CONTEXT)),
        ("rmdir", (ROOT, b"x", CONTEXT)),
        ("symlink", (ROOT, b"x", b"y", CONTEXT)),
        ("rename", (ROOT, b"x", ROOT, b"y", 0, CONTEXT)),
        ("link", (ROOT, ROOT, b"x", CONTEXT)),
        ("write", (1, 0, b"x")),
        ("create", (ROOT, b"x", 0o600, 0, CONTEXT)),
        ("setxattr", (ROOT, b"user.x", b"y", CONTEXT)),
        ("removexattr", (ROOT, b"user.x", CONTEXT)),
    ],
)
async def test_what_would_change_the_tree_is_erofs_and_counted(operations, name, arguments):
    assert await errno_of(getattr(operations, name), *arguments) == errno.EROFS
    statistics = operations.statistics()
    assert (statistics.upcalls[name], statistics.errors) == (1, {"EROFS": 1})


# Directories


async def test_a_listing_counts_a_lookup_for_each_entry_but_the_dots(source, operations):
    for name in ("a", "b"):
        (source / name).touch()
    handle = await operations.opendir(ROOT, CONTEXT)
    entries = await listed(operations, handle)
    assert [name for name, *_ in entries[:2]] == [b".", b".."]
    nodeids = {name: nodeid for name, nodeid, *_ in entries[2:]}
    assert nodeids == {b"a": await look_up(operations, "a"), b"b": await look_up(operations, "b")}
    await operations.forget([(nodeid, 2) for nodeid in nodeids.values()])
    assert operations.statistics().nodes == 1


async def test_a_listing_beside_many_nodes_leaves_new_names_to_lookups(
    source, operations, leases, monkeypatch
):
    (source / "known").touch()
    (source / "new").touch()
    known = await look_up(operations, "known")
    monkeypatch.setattr(_nodes, "LISTED_NODES", 2)
    handle = await operations.opendir(ROOT, CONTEXT)
    entries = {name: entry for name, _, _, entry in await listed(operations, handle)}
    assert entries[b"known"].st_ino == known
    assert entries[b"new"].st_ino == 0
    assert entries[b"new"].generation == os.stat(source / "new").st_ino
    assert set(leases.inos) == {ROOT, known}
    new = await look_up(operations, "new")
    await operations.forget([(known, 2), (new, 1)])
    assert operations.statistics().nodes == 1


async def test_an_entry_that_finds_no_room_is_not_counted(source, operations, leases):
    for name in "abcde":
        (source / name).touch()
    handle = await operations.opendir(ROOT, CONTEXT)
    start, names = 0, []
    while entries := await listed(operations, handle, start, room=3):
        names += [name for name, *_ in entries]
        start = entries[-1][2]
        assert operations.statistics().nodes == len(set(names) - {b".", b".."}) + 1
        assert len(leases.inos) == operations.statistics().nodes
    assert sorted(names) == [b".", b"..", b"a", b"b", b"c", b"d", b"e"]


async def test_a_rewound_directory_is_read_anew_and_a_continued_one_is_not(source, operations):
    handle = await operations.opendir(ROOT, CONTEXT)
    assert len(await listed(operations, handle)) == 2
    (source / "new").touch()
    assert await listed(operations, handle, 2) == []
    assert len(await listed(operations, handle)) == 3
    await operations.releasedir(handle)
    assert await errno_of(operations.releasedir, handle) == errno.EBADF


async def test_dots_show_the_directory_and_its_parent(source, operations):
    (source / "d").mkdir()
    nodeid = await look_up(operations, "d")
    entries = await listed(operations, await operations.opendir(nodeid, CONTEXT))
    assert [entry[1] for entry in entries] == [nodeid, ROOT]


# Extended attributes


async def test_acls_where_the_filesystem_has_none_are_enodata(source, operations, monkeypatch):
    def unsupported(node, name):
        raise OSError(errno.EOPNOTSUPP, "no ACLs here")

    monkeypatch.setattr(operations._tree, "getxattr", unsupported)
    for name in (b"system.posix_acl_access", b"system.posix_acl_default"):
        assert await errno_of(operations.getxattr, ROOT, name, CONTEXT) == errno.ENODATA
    assert await errno_of(operations.getxattr, ROOT, b"user.x", CONTEXT) == errno.EOPNOTSUPP


async def test_trusted_names_are_listed_by_capability(operations, monkeypatch):
    monkeypatch.setattr(operations._tree, "listxattr", lambda node: [b"user.a", b"trusted.b"])
    gone = SimpleNamespace(uid=0, gid=0, pid=2**30, umask=0)
    assert await operations.listxattr(ROOT, gone) == [b"user.a"]
    names = [b"user.a", b"trusted.b"] if os.geteuid() == 0 else [b"user.a"]
    assert await operations.listxattr(ROOT, CONTEXT) == names


async def test_access_is_decided_by_the_tree(source, operations):
    (source / "f").touch()
    os.chmod(source / "f", 0o600)
    stranger = SimpleNamespace(uid=os.getuid() + 1, gid=os.getgid() + 1, pid=os.getpid(), umask=0)
    nodeid = await look_up(operations, "f")
    assert await operations.access(nodeid, os.R_OK, CONTEXT)
    assert not await operations.access(nodeid, os.R_OK, stranger)
    assert not await operations.access(nodeid, os.W_OK, CONTEXT)


# Trees that misbehave


class Misbehaving(Tree):
    """A tree that takes every answer from `answer`."""

    def __init__(self, answer):
        self.root = SimpleNamespace(identity="root", volatile=False, merge=lambda other: None)
        self.answer = answer

    def lookup(self, directory, name):
        return self.answer()

    def attributes(self, node):
        return self.answer()

    def readlink(self, node):
        return self.answer()

    def open(self, node):
        return self.answer()

    def listing(self, node):
        return self.answer()

    def statfs(self):
        return self.answer()

    def getxattr(self, node, name):
        return self.answer()

    def listxattr(self, node):
        return self.answer()


CALLS = [
    ("lookup", (ROOT, b"x", CONTEXT)),
    ("getattr", (ROOT, CONTEXT)),
    ("readlink", (ROOT, CONTEXT)),
    ("open", (ROOT, os.O_RDONLY, CONTEXT)),
    ("opendir", (ROOT, CONTEXT)),
    ("statfs", (CONTEXT,)),
    ("getxattr", (ROOT, b"user.x", CONTEXT)),
    ("listxattr", (ROOT, CONTEXT)),
    ("access", (ROOT, os.R_OK, CONTEXT)),
]


def raising(error):
    def answer():
        raise error

    return answer


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=[name for name, _ in CALLS])
@pytest.mark.parametrize(
    "error",
    [ValueError("policy"), SystemExit(3), StopIteration(), RecursionError(), BaseException("odd")],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_a_tree_raises_is_eio_with_a_traceback(caplog, name, arguments, error):
    operations = Operations(Misbehaving(raising(error)), cache_timeout=1)
    assert await errno_of(getattr(operations, name), *arguments) == errno.EIO
    assert operations.statistics().errors == {"EIO": 1}
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=[name for name, _ in CALLS])
async def test_an_answer_of_the_wrong_type_is_eio(name, arguments):
    operations = Operations(Misbehaving(lambda: 3.5), cache_timeout=1)
    if name == "opendir":
        handle = await operations.opendir(*arguments)
        assert await errno_of(operations.readdir, handle, 0, Reply()) == errno.EIO
    else:
        assert await errno_of(getattr(operations, name), *arguments) == errno.EIO


@pytest.mark.parametrize(
    ("number", "replied"),
    [
        (errno.EACCES, errno.EACCES),
        (errno.ENOSYS, errno.EOPNOTSUPP),
        (0, errno.EIO),
        (-2, errno.EIO),
        (512, errno.EIO),
        (100000, errno.EIO),
    ],
)
async def test_only_an_errno_that_the_kernel_takes_is_replied(number, replied):
    operations = Operations(Misbehaving(raising(OSError(number, "odd"))), cache_timeout=1)
    assert await errno_of(operations.getattr, ROOT, CONTEXT) == replied


async def test_few_opens_of_each_user_and_in_all_wait_for_a_lease(operations, monkeypatch):
    def always_leased(node):
        raise BlockingIOError(errno.EAGAIN, "leased")

    monkeypatch.setattr(operations._tree, "open", always_leased)
    users = [SimpleNamespace(uid=uid, gid=0, pid=1, umask=0) for uid in (1, 2, 3)]
    async with trio.open_nursery() as nursery:
        for user in (users[0], users[0]):
            nursery.start_soon(operations.open, ROOT, os.O_RDONLY, user)
        await wait_all_tasks_blocked(0.0)
        assert await errno_of(operations.open, ROOT, os.O_RDONLY, users[0]) == errno.EAGAIN
        for user in (users[1], users[1]):
            nursery.start_soon(operations.open, ROOT, os.O_RDONLY, user)
        await wait_all_tasks_blocked(0.0)
        assert await errno_of(operations.open, ROOT, os.O_RDONLY, users[2]) == errno.EAGAIN
        found = operations.statistics()
        assert (found.waiting_opens, found.refused_opens) == (4, 2)
        nursery.cancel_scope.cancel()
    assert operations.statistics().waiting_opens == 0


async def test_an_open_of_bytes_that_the_tree_makes_takes_no_place(operations, monkeypatch):
    def being_made(node):
        raise BeingMadeError(errno.EAGAIN, "being made")

    monkeypatch.setattr(operations._tree, "open", being_made)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(operations.open, ROOT, os.O_RDONLY, CONTEXT)
        await wait_all_tasks_blocked(0.0)
        found = operations.statistics()
        assert (found.waiting_opens, found.refused_opens) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_an_oserror_without_an_errno_is_eio():
    operations = Operations(Misbehaving(raising(OSError("words only"))), cache_timeout=1)
    assert await errno_of(operations.getattr, ROOT, CONTEXT) == errno.EIO


async def test_a_cancelled_handler_stays_cancelled(source, operations, monkeypatch):
    def always_leased(node):
        raise BlockingIOError(errno.EAGAIN, "leased")

    monkeypatch.setattr(operations._tree, "open", always_leased)
    with trio.move_on_after(0.01) as scope:
        await operations.open(ROOT, os.O_RDONLY, CONTEXT)
    assert scope.cancelled_caught


async def test_a_failure_in_the_middle_of_a_listing_is_told_with_the_next_call(
    source, operations, monkeypatch
):
    for name in "abc":
        (source / name).touch()
    tree = operations._tree
    handle = await operations.opendir(ROOT, CONTEXT)
    entry, seen = tree.entry, []

    def failing(fd, directory, name):
        if len(seen) == 2:
            raise RuntimeError("policy")
        seen.append(name)
        return entry(fd, directory, name)

    monkeypatch.setattr(tree, "entry", failing)
    entries = await listed(operations, handle)
    assert [name for name, *_ in entries[2:]] == seen
    assert operations.statistics().nodes == 3
    assert await errno_of(operations.readdir, handle, entries[-1][2], Reply()) == errno.EIO


async def test_a_volatile_node_is_told_not_to_be_cached(source, operations, monkeypatch):
    class Volatile(Node):
        __slots__ = ("identity",)
        volatile = True

    node = Volatile()
    node.identity = "volatile"
    attributes = operations._tree.attributes(operations._tree.root)
    monkeypatch.setattr(operations._tree, "lookup", lambda directory, name: (node, attributes))
    entry = await operations.lookup(ROOT, b"x", CONTEXT)
    assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)


async def test_nothing_about_the_names_in_a_volatile_directory_is_told_to_be_cached(
    source, operations, monkeypatch
):
    (source / "file").touch()
    monkeypatch.setattr(type(operations._tree.root), "volatile", True)
    node = await operations.lookup(ROOT, b"file", CONTEXT)
    missing = await operations.lookup(ROOT, b"missing", CONTEXT)
    assert (node.entry_timeout, missing.entry_timeout, missing.attr_timeout) == (0, 0, 0)


async def test_forget_never_raises(source, leases, operations, caplog):
    (source / "f").touch()
    nodeid = await look_up(operations, "f")
    leases.inos.clear()
    await operations.forget([(nodeid, 1)])
    assert "forget failed" in caplog.text
