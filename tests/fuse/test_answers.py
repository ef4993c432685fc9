"""Trees with awaited answers, changes of a tree, and leases of directories below its root."""

import errno
import logging
import os
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from zcfuse.fuse._changes import Changes
from zcfuse.fuse._directory_leases import DirectoryLeases
from zcfuse.fuse._operations import Operations
from zcfuse.tree import Bytes, Computed, Dir, Mirror, VirtualTree

ROOT = 1
ALICE = SimpleNamespace(uid=1, gid=1, pid=11, umask=0)
BOB = SimpleNamespace(uid=2, gid=2, pid=22, umask=0)


class Leases:
    """Stands in for the data path and records its calls."""

    def __init__(self):
        self.calls = []
        self.fail = None

    def install(self, nodeid, extents, path):
        self.calls.append(("install", path, len(extents)))
        return "cached", ""

    def lease_directory(self, nodeid, fd, kept):
        if self.fail:
            raise self.fail
        self.calls.append(("lease", nodeid))

    def drop_directory(self, nodeid):
        self.calls.append(("drop", nodeid))

    def push_changes(self, nodeid, strict):
        return ""

    def freshness(self, nodeid):
        return ""

    def revoke_directory(self, nodeid):
        self.calls.append(("revoke", nodeid))
        return True

    def revoke(self, nodeid):
        pass

    def set_ino(self, nodeid, ino):
        pass

    def drop_inos(self, nodeids):
        pass

    def describe(self, nodeid):
        return []


def serving(directory, *, leases=None, **options):
    tree = VirtualTree(directory)
    granted = DirectoryLeases(tree, leases) if leases is not None else None
    return Operations(
        tree, cache_timeout=5, leases=leases, directory_leases=granted, answer_timeout=2, **options
    )


async def errno_of(call, *arguments):
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call(*arguments)
    return errno.errorcode[caught.value.errno]


class Failing(Dir):
    """Answers with the result of `answer`."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    async def lookup(self, name, who):
        return await self.answer(who)

    async def list(self, who):
        return await self.answer(who)


async def raise_bug(who):
    raise ZeroDivisionError("a bug")


async def raise_errno(who):
    raise OSError(errno.EDQUOT, "quota")


async def never(who):
    await trio.sleep_forever()


async def number(who):
    return 7


async def exit_(who):
    raise SystemExit(3)


async def in_a_group(who):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_bug, who)


@pytest.mark.parametrize(
    ("answer", "errno_name", "logged"),
    [
        (raise_bug, "EIO", "ZeroDivisionError: a bug"),
        (in_a_group, "EIO", "ZeroDivisionError: a bug"),
        (exit_, "EIO", "SystemExit: 3"),
        (raise_errno, "EDQUOT", ""),
        (number, "EIO", "TypeError"),
        (never, "ETIMEDOUT", "no answer within 2 s"),
    ],
)
async def test_whatever_a_policy_does_costs_only_its_caller(
    answer, errno_name, logged, caplog, autojump_clock
):
    operations = serving(Failing(answer))
    with caplog.at_level(logging.ERROR):
        assert await errno_of(operations.lookup, ROOT, b"name", ALICE) == errno_name
        assert await errno_of(operations.opendir, ROOT, ALICE) == errno_name
    assert logged in caplog.text
    assert (await operations.getattr(ROOT, ALICE)).st_ino == ROOT


async def test_what_a_dynamic_directory_answers_is_never_cached():
    class PerUser(Dir):
        async def lookup(self, name, who):
            return Bytes(b"%d" % who.uid) if name != "none" else None

    operations = serving(PerUser())
    found = [await operations.lookup(ROOT, b"name", who) for who in (ALICE, BOB, ALICE)]
    assert [entry.entry_timeout for entry in found] == [0, 0, 0]
    assert found[0].st_ino == found[2].st_ino != found[1].st_ino
    assert (await operations.lookup(ROOT, b"none", ALICE)).entry_timeout == 0
    assert (await operations.getattr(ROOT, ALICE)).attr_timeout == 0


async def test_what_a_directory_made_on_demand_answers_is_cached_if_it_says_so():
    class Kept(Dir):
        volatile = False

        async def lookup(self, name, who):
            return Bytes(name.encode())

    assert (await serving(Kept()).lookup(ROOT, b"name", ALICE)).entry_timeout == 5


async def test_a_rewind_asks_for_the_process_that_opened_the_directory():
    asked = []

    class Listed(Dir):
        async def list(self, who):
            asked.append(who.uid)
            return []

    replied = []
    operations = serving(Listed(), readdir_reply=lambda *entry: replied.append(entry[1]) or True)
    handle = await operations.opendir(ROOT, BOB)
    await operations.readdir(handle, 0, None)
    await operations.readdir(handle, 0, None)
    await operations.releasedir(handle)
    assert asked == [2, 2]


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (lambda offset, size: bytes(size - 1), "EIO"),
        (lambda offset, size: bytes(size + 1), "EIO"),
        (lambda offset, size: "text", "EIO"),
        (lambda offset, size: None, "EIO"),
        (lambda offset, size: 1 // 0, "EIO"),
    ],
)
async def test_computed_bytes_that_are_not_what_was_asked_for_are_an_error(answer, number, caplog):
    async def read(offset, size):
        return answer(offset, size)

    leases = Leases()
    operations = serving(Dir({"name": Computed(100, read)}), leases=leases)
    nodeid = (await operations.lookup(ROOT, b"name", ALICE)).st_ino
    opened = await operations.open(nodeid, os.O_RDONLY, ALICE)
    assert opened.direct_io
    assert leases.calls == [("install", "upcall", 0)]
    assert await errno_of(operations.read, opened.fh, 10, 20) == number
    assert "Traceback" in caplog.text
    assert await operations.read(opened.fh, 100, 20) == b""
    await operations.release(opened.fh)


async def test_computed_bytes_never_reach_beyond_the_end(autojump_clock):
    async def read(offset, size):
        await trio.sleep(offset)
        return bytes(size)

    operations = serving(Dir({"name": Computed(100, read)}))
    nodeid = (await operations.lookup(ROOT, b"name", ALICE)).st_ino
    opened = await operations.open(nodeid, os.O_RDONLY, ALICE)
    assert await operations.read(opened.fh, 1, 200) == bytes(99)
    assert await errno_of(operations.read, opened.fh, 50, 1) == "ETIMEDOUT"
    operations.close()


async def test_an_entry_chooses_its_path():
    leases = Leases()
    operations = serving(Dir({"name": Bytes(b"x", path="splice")}), leases=leases)
    nodeid = (await operations.lookup(ROOT, b"name", ALICE)).st_ino
    await operations.open(nodeid, os.O_RDONLY, ALICE)
    assert leases.calls == [("install", "splice", 1)]
    operations.close()


async def test_a_mirror_below_a_directory_is_leased_while_the_kernel_knows_it(tmp_path):
    leases = Leases()
    mirror = Mirror(tmp_path)
    operations = serving(Dir({"m": mirror, "file": Bytes(b"")}), leases=leases)
    await operations.lookup(ROOT, b"file", ALICE)
    nodeid = (await operations.lookup(ROOT, b"m", ALICE)).st_ino
    await operations.lookup(ROOT, b"m", ALICE)
    assert leases.calls == [("lease", nodeid)]
    await operations.forget([(nodeid, 1)])
    assert leases.calls == [("lease", nodeid)]
    await operations.forget([(nodeid, 1)])
    again = (await operations.lookup(ROOT, b"m", ALICE)).st_ino
    assert leases.calls == [("lease", nodeid), ("drop", nodeid), ("lease", again)]
    mirror.close()


async def test_a_lease_that_is_not_to_be_had_or_was_revoked_is_done_without(tmp_path):
    leases = Leases()
    leases.fail = OSError(errno.ENOSYS, "no openat2")
    mirror = Mirror(tmp_path)
    tree = VirtualTree(Dir({"m": mirror, "n": mirror}))
    granted = DirectoryLeases(tree, leases)
    operations = Operations(tree, cache_timeout=5, leases=leases, directory_leases=granted)
    nodeid = (await operations.lookup(ROOT, b"m", ALICE)).st_ino
    assert leases.calls == []
    await operations.forget([(nodeid, 1)])
    leases.fail = None
    nodeid = (await operations.lookup(ROOT, b"m", ALICE)).st_ino
    granted.revoke()
    await operations.lookup(ROOT, b"n", ALICE)
    assert leases.calls == [("lease", nodeid), ("revoke", nodeid)]
    mirror.close()


async def test_a_mirror_that_keeps_what_is_no_path_is_served_without_a_lease(tmp_path, caplog):
    class Wrong(Mirror):
        def keeps(self):
            return [b"../out"]

    leases = Leases()
    mirror = Wrong(tmp_path)
    operations = serving(Dir({"m": mirror}), leases=leases)
    assert (await operations.lookup(ROOT, b"m", ALICE)).st_ino > ROOT
    assert leases.calls == []
    assert "not a path below the leased directory" in caplog.text
    mirror.close()


async def test_changes_are_told_once_each_and_only_of_what_the_kernel_knows():
    told = []
    tree = VirtualTree(Dir({"dir": Dir()}))
    changes = Changes(lambda node: 7 if node is tree.root else None, lambda *one: told.append(one))
    async with trio.open_nursery() as nursery:
        await changes.notified()
        changes.note(tree.root, b"a")
        changes.note(tree.root, b"a")
        changes.note(tree.root, b"b")
        changes.note(tree.lookup(tree.root, b"dir")[0], b"c")
        nursery.start_soon(changes.run)
        with trio.fail_after(5):
            await changes.notified()
        assert told == [(7, b"a"), (7, b"b")]
        changes.note(tree.root, b"c")
        with trio.fail_after(5):
            await changes.notified()
        assert told[2:] == [(7, b"c")]
        nursery.cancel_scope.cancel()
    changes.note(tree.root, b"d")
    await changes.notified()


async def test_a_kernel_that_cannot_be_told_is_no_reason_to_stop(caplog):
    def tell(nodeid, name):
        raise OSError(errno.ENOTCONN, "gone")

    tree = VirtualTree(Dir())
    changes = Changes(lambda node: 1, tell)
    with caplog.at_level(logging.INFO):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(changes.run)
            for name in (b"a", b"b"):
                changes.note(tree.root, name)
                with trio.fail_after(5):
                    await changes.notified()
            nursery.cancel_scope.cancel()
    assert caplog.text.count("could not be reported") == 2
