"""Requests about files, answered from a tree without a mount."""

import errno
import os
import threading

import pytest
import trio
import trio.testing

from tests.support import requires
from zcfuse import Bytes, Computed, Concat, Dir, File, Slice, Zeros
from zcfuse.admin._file_requests import FileRequests
from zcfuse.admin._messages import MOST_BYTES, MOST_FILES, FileRange, LockOutcome
from zcfuse.admin.locks._files import FileLocks
from zcfuse.admin.locks._room import LockRoom, OwnBudget
from zcfuse.admin.status._document import Refusal, Request
from zcfuse.tree import VirtualTree

pytestmark = requires("locked memory")

SIZE = 1 << 20


class Policy(Dir):
    """Answers only the client known by a nodeid."""

    async def lookup(self, name, who):
        raise PermissionError(errno.EACCES, "not you")

    async def list(self, who):
        return []


async def compute(offset, size):
    return bytes(size)


@pytest.fixture
def backing(tmp_path):
    path = tmp_path / "backing"
    path.write_bytes(os.urandom(SIZE))
    return str(path)


def requests_of(tree, locks=None, *, mode="cached", node_of=None):
    def serve(file):
        return ("upcall" if file.path == "upcall" else mode), ""

    room = LockRoom(None, OwnBudget(0), lockable=lambda: None, spare=lambda: 1 << 40)
    return FileRequests(tree, locks or FileLocks(room), serve, node_of or (lambda _: None), 5.0)


@pytest.fixture
def asked(backing):
    """Requests about a tree with one file of each kind."""
    tree = VirtualTree(
        Dir(
            {
                "whole": File(backing),
                "slice": Slice(backing, 4096, 8192),
                "bytes": Bytes(b"x" * 5000),
                "computed": Computed(5000, compute),
                "d": Dir({"deep": File(backing)}),
                "missing": File(backing + ".not"),
            }
        )
    )
    requests = requests_of(tree)
    yield requests
    requests.locks.close()
    tree.close()


async def lock(requests, *paths, length=SIZE):
    files = [FileRange(path, length=length) for path in paths]
    return (await requests.answer(Request("lock", files=files))).outcomes


async def test_a_file_and_a_slice_are_locked_by_their_backing_file(asked):
    whole, part = await lock(asked, b"d/deep", b"slice")
    assert (whole.locked, part.locked) == (SIZE, 8192)
    report = await asked.report()
    assert (report.files, report.present) == (2, SIZE + 8192)
    reply = await asked.answer(Request("unlock", files=[FileRange(b"d")]))
    assert (reply.files, reply.bytes) == (1, SIZE)
    await asked.answer(Request("unlock"))
    assert await asked.report() is None


async def test_the_ranges_of_a_file_stay_locked_whatever_each_is_made_of(backing, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(SIZE))
    joined = Concat([File(backing), Zeros(SIZE), File(str(other))])
    requests = requests_of(VirtualTree(Dir({"joined": joined})))
    files = [FileRange(b"joined", offset=SIZE * part, length=SIZE) for part in range(3)]
    found = (await requests.answer(Request("lock", files=files))).outcomes
    assert [one.locked for one in found] == [SIZE, 0, SIZE]
    again = (await requests.answer(Request("lock", files=files))).outcomes
    assert [one.held for one in again] == [SIZE, 0, SIZE]
    assert (await requests.report()).present == 2 * SIZE
    requests.locks.close()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (b"bytes", "in memory already"),
        (b"computed", "a program makes its bytes"),
        (b"missing", "ENOENT"),
        (b"nothing", "ENOENT"),
        (b"d", "EISDIR"),
    ],
)
async def test_what_cannot_be_locked_says_why_and_the_next_is_locked(asked, path, word):
    refused, locked = await lock(asked, path, b"whole")
    assert (refused.locked, refused.refused) == (0, False)
    assert word in refused.reason
    assert locked.locked == SIZE


async def test_a_tree_that_fails_costs_one_line_and_no_more(backing, caplog):
    class Broken(Dir):
        async def lookup(self, name, who):
            raise ValueError("no such thing")

        async def list(self, who):
            return []

    requests = requests_of(VirtualTree(Dir({"broken": Broken(), "file": File(backing)})))
    failed, locked = await lock(requests, b"broken/x", b"file")
    assert failed.reason == "the tree failed: ValueError('no such thing')"
    assert locked.locked == SIZE
    assert "no such thing" in caplog.text
    requests.locks.close()


async def test_a_range_that_is_too_large_is_refused(asked):
    (outcome,) = await lock(asked, b"whole", length=MOST_BYTES + 1)
    assert outcome.reason == "more than 64 MiB in one request"


async def test_too_many_files_are_refused(asked):
    files = [FileRange(b"whole", length=1)] * (MOST_FILES + 1)
    assert isinstance(await asked.answer(Request("lock", files=files)), Refusal)


async def test_where_answers_depend_on_who_asks_the_nodeid_says_which_file_it_is(backing):
    outer = VirtualTree(Dir({"policy": Policy(), "file": File(backing)}))
    file, _ = outer.lookup(outer.root, b"file")
    requests = requests_of(outer, node_of={7: file}.__getitem__)
    refused = await lock(requests, b"policy/mine")
    assert refused[0].reason == "not you"
    request = Request("lock", files=[FileRange(b"policy/mine", 7, 0, SIZE)])
    assert (await requests.answer(request)).outcomes == [LockOutcome(SIZE, 0)]
    requests.locks.close()


async def test_the_loop_goes_on_while_a_file_is_being_locked(backing):
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FileLocks):
        def lock(self, path, pieces, files):
            begun.set()
            assert go_on.wait(10)
            return super().lock(path, pieces, files)

    room = LockRoom(None, OwnBudget(0), lockable=lambda: None, spare=lambda: 1 << 40)
    requests = requests_of(VirtualTree(Dir({"f": File(backing)})), Slow(room))
    outcomes = []
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def ask():
                outcomes.extend(await lock(requests, b"f"))

            nursery.start_soon(ask)
            assert await trio.to_thread.run_sync(begun.wait, 10)
            # Status and unlock work meanwhile: neither waits for the disk.
            assert await requests.report() is None
            go_on.set()
    assert outcomes[0].locked == SIZE
    requests.locks.close()


async def test_a_disk_that_hangs_holds_up_no_more_than_so_many_requests(backing):
    go_on = threading.Event()

    class Slow(FileLocks):
        def lock(self, path, pieces, files):
            assert go_on.wait(10)
            return super().lock(path, pieces, files)

    room = LockRoom(None, OwnBudget(0), lockable=lambda: None, spare=lambda: 1 << 40)
    requests = requests_of(VirtualTree(Dir({"f": File(backing)})), Slow(room))
    asked = Request("lock", files=[FileRange(b"f", length=SIZE)])
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(requests.answer, asked)
            await trio.testing.wait_all_tasks_blocked()
            refused = await requests.answer(asked)
            assert isinstance(refused, Refusal)
            assert "does a disk hang" in refused.message
            assert (await requests.answer(Request("unlock"))).files == 0
            go_on.set()
        assert (await requests.answer(asked)).outcomes[0].held == SIZE
    requests.locks.close()


async def test_a_client_that_goes_away_leaves_nothing_locked_that_is_not_reported(backing):
    begun, done, locked = threading.Event(), threading.Event(), threading.Event()

    class Slow(FileLocks):
        def lock(self, path, pieces, files):
            begun.set()
            done.wait(10)
            outcome = super().lock(path, pieces, files)
            locked.set()
            return outcome

    room = LockRoom(None, OwnBudget(0), lockable=lambda: None, spare=lambda: 1 << 40)
    requests = requests_of(VirtualTree(Dir({"f": File(backing)})), Slow(room))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lock, requests, b"f")
            assert await trio.to_thread.run_sync(begun.wait, 10)
            nursery.cancel_scope.cancel()
        done.set()
        assert await trio.to_thread.run_sync(locked.wait, 10)
        report = await requests.report()
    assert (report.files, report.bytes, report.present) == (1, SIZE, SIZE)
    requests.locks.close()


@pytest.mark.parametrize(
    ("mode", "twice"), [("passthrough", False), ("cached", True), ("naive", True)]
)
async def test_only_what_is_not_passed_through_is_cached_twice(backing, mode, twice):
    requests = requests_of(VirtualTree(Dir({"f": File(backing)})), mode=mode)
    reply = await requests.answer(Request("caches", files=[FileRange(b"f", length=SIZE)]))
    assert [(state.mode, state.twice) for state in reply.states] == [(mode, twice)]


@requires("kernel 6.5")  # cachestat(2)
async def test_a_file_is_dropped_from_the_cache_behind_the_mount(asked, backing):
    fd = os.open(backing, os.O_RDONLY)
    os.fsync(fd)
    os.pread(fd, SIZE, 0)
    os.close(fd)
    files = [FileRange(b"whole", length=SIZE)]
    before = (await asked.answer(Request("caches", files=files))).states[0]
    assert before.backing_bytes == SIZE
    after = (await asked.answer(Request("spare", files=files))).states[0]
    assert after.backing_bytes == 0


async def test_what_is_not_there_has_no_cache(asked):
    reply = await asked.answer(Request("caches", files=[FileRange(b"nothing", length=1)]))
    assert reply.states[0].mode == ""
