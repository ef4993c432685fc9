"""Files kept in memory, without a mount: real files, real locks."""

import os
import random
import re
import threading

import pytest

from tests.support import requires
from zcfuse.admin.locks import _files as module
from zcfuse.admin.locks._files import (
    REPLACED,
    TRUNCATED,
    FileLocks,
    backing_ranges,
    files_of,
    pieces_of,
)
from zcfuse.admin.locks._room import LockRoom, OwnBudget
from zcfuse.linux._mapping import PAGE_BYTES, Mapping, data_ranges
from zcfuse.tree import HOLE, WHOLE_FILE, Extent

pytestmark = requires("locked memory")

PAGES = 64
SIZE = PAGES * PAGE_BYTES
PLENTY = 1 << 40


def room(limit=None, lockable=None, spare=PLENTY):
    budget = OwnBudget(limit or 0)
    return LockRoom(limit, budget, lockable=lambda: lockable, spare=lambda: spare)


@pytest.fixture
def locks():
    made = FileLocks(room())
    yield made
    made.close()


@pytest.fixture
def path(tmp_path):
    """A file of many pages."""
    file = tmp_path / "file"
    file.write_bytes(random.Random(1).randbytes(SIZE))
    return str(file)


def lock(locks, path, offset=0, length=SIZE):
    fd = os.open(path, os.O_RDONLY)
    try:
        extents = [Extent(fd, 0, WHOLE_FILE)]
        pieces = pieces_of(extents, offset, length)
        return locks.lock(os.fsencode(os.path.basename(path)), pieces, files_of(extents))
    finally:
        os.close(fd)


def locked_by_the_kernel():
    with open("/proc/self/status") as file:
        return int(re.search(r"^VmLck:\s*(\d+) kB", file.read(), re.MULTILINE)[1]) * 1024


def test_a_locked_file_is_locked_for_the_kernel_until_it_is_unlocked(locks, path):
    before = locked_by_the_kernel()
    outcome = lock(locks, path)
    assert (outcome.locked, outcome.held, outcome.reason) == (SIZE, 0, "")
    assert locked_by_the_kernel() == before + SIZE
    report = locks.report()
    assert (report.files, report.bytes, report.present, report.noted) == (1, SIZE, SIZE, 0)
    assert locks.unlock(b"file") == (1, SIZE)
    assert locked_by_the_kernel() == before
    assert locks.report().files == 0


def test_locked_pages_stay_although_the_kernel_is_asked_to_drop_them(locks, path):
    lock(locks, path, 0, SIZE // 2)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    mapping = Mapping(fd, 0, SIZE // 2)
    os.close(fd)
    assert mapping.in_core() == PAGES // 2
    mapping.close()


def test_what_is_locked_already_is_not_locked_twice(locks, path):
    lock(locks, path, 0, 10 * PAGE_BYTES)
    before = locked_by_the_kernel()
    outcome = lock(locks, path, 5 * PAGE_BYTES, 10 * PAGE_BYTES)
    assert (outcome.locked, outcome.held) == (5 * PAGE_BYTES, 5 * PAGE_BYTES)
    assert locked_by_the_kernel() == before + 5 * PAGE_BYTES
    assert lock(locks, path, 0, 15 * PAGE_BYTES).held == 15 * PAGE_BYTES


def test_what_two_clients_ask_for_at_once_is_locked_once(path, monkeypatch):
    before = locked_by_the_kernel()
    locks = FileLocks(room(limit=2 * SIZE))
    real = Mapping.lock

    def with_another(self):
        monkeypatch.undo()
        assert lock(locks, path).locked == SIZE
        real(self)

    monkeypatch.setattr(Mapping, "lock", with_another)
    outcome = lock(locks, path)
    assert (outcome.locked, outcome.held, outcome.reason) == (0, SIZE, "")
    assert locks.report().bytes == SIZE
    assert locked_by_the_kernel() == before + SIZE
    locks.close()


def test_a_file_of_several_pieces_that_became_shorter_keeps_none_behind_its_end(locks, path):
    for part in range(4):
        lock(locks, path, part * SIZE // 4, SIZE // 4)
    os.truncate(path, SIZE // 4)
    lock(locks, path, 0, SIZE // 4)
    report = locks.report()
    assert (report.bytes, report.present, report.noted) == (SIZE // 4, SIZE // 4, 0)


def test_a_file_that_is_truncated_while_it_is_locked_is_told_and_harms_nothing(locks, path):
    lock(locks, path)
    os.truncate(path, SIZE // 4)
    file = locks.report().listed[0]
    assert (file.bytes, file.note) == (SIZE, TRUNCATED)
    assert file.present <= SIZE // 4
    os.truncate(path, SIZE)
    assert locks.report().listed[0].note == TRUNCATED


def test_a_truncated_file_is_locked_anew_as_far_as_it_goes(locks, path):
    lock(locks, path)
    os.truncate(path, SIZE // 4)
    assert lock(locks, path).locked == SIZE // 4
    report = locks.report()
    assert (report.bytes, report.present, report.noted) == (SIZE // 4, SIZE // 4, 0)


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_file_that_is_no_longer_there_is_told_and_stays_as_it_was(locks, path, tmp_path, how):
    lock(locks, path)
    if how == "removed":
        os.unlink(path)
    elif how == "moved":
        os.rename(path, path + ".old")
    else:
        (tmp_path / "new").write_bytes(b"x" * SIZE)
        os.rename(tmp_path / "new", path)
    file = locks.report().listed[0]
    assert (file.present, file.note) == (SIZE, REPLACED)


def test_the_file_that_replaced_a_locked_one_takes_its_place(locks, path, tmp_path):
    lock(locks, path)
    (tmp_path / "new").write_bytes(b"x" * SIZE)
    os.rename(tmp_path / "new", path)
    assert lock(locks, path).locked == SIZE
    report = locks.report()
    assert (report.files, report.bytes, report.noted) == (1, SIZE, 0)


def test_large_holes_are_not_locked(locks, tmp_path):
    path = str(tmp_path / "sparse")
    with open(path, "wb") as file:
        file.write(b"x" * PAGE_BYTES)
        file.truncate(32 << 20)
        file.seek(16 << 20)
        file.write(b"y" * PAGE_BYTES)
    with open(path, "rb") as file:
        if len(data_ranges(file.fileno(), 0, 32 << 20)) != 2:
            pytest.skip("this filesystem keeps no holes")
    assert lock(locks, path, 0, 32 << 20).locked == 2 * PAGE_BYTES
    # A range that is one hole also leaves the locks around it in place.
    assert lock(locks, path, 1 << 20, 1 << 20).locked == 0
    assert locks.report().bytes == 2 * PAGE_BYTES


def test_what_has_no_room_as_a_whole_is_locked_in_part(path, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(8 << 20))
    locks = FileLocks(room(limit=5 << 20))
    outcome = lock(locks, str(big), 0, 8 << 20)
    assert outcome.refused
    assert "--lock-budget" in outcome.reason
    assert 4 << 20 <= outcome.locked <= 5 << 20
    assert locks.report().bytes == outcome.locked
    refused = lock(locks, path)
    assert refused.refused or refused.locked == SIZE
    locks.close()
    assert lock(FileLocks(room(limit=5 << 20)), path).locked == SIZE


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"limit": 4096}, "--lock-budget"),
        ({"lockable": 4096}, "ulimit -l"),
        ({"spare": 4096}, "memory is short"),
    ],
)
def test_without_room_nothing_is_locked_and_the_reason_names_the_remedy(path, given, word):
    before = locked_by_the_kernel()
    locks = FileLocks(room(**given))
    outcome = lock(locks, path)
    assert (outcome.locked, outcome.refused) == (0, True)
    assert word in outcome.reason
    assert locked_by_the_kernel() == before
    assert locks.locked_bytes == 0


def test_what_the_kernel_refuses_to_lock_is_given_back_and_told(path, monkeypatch):
    def refuse(self):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(Mapping, "lock", refuse)
    locks = FileLocks(room(limit=SIZE))
    outcome = lock(locks, path)
    assert (outcome.locked, outcome.refused) == (0, False)
    assert "ENOMEM" in outcome.reason
    monkeypatch.undo()
    assert lock(locks, path).locked == SIZE
    locks.close()


def test_a_directory_is_unlocked_with_all_that_is_below_it_and_nothing_else(locks, tmp_path):
    for name in ("d/a", "d/b/c", "dd"):
        file = tmp_path / name.replace("/", "-")
        file.write_bytes(bytes(PAGE_BYTES))
        with open(file, "rb") as opened:
            extents = [Extent(opened.fileno(), 0, WHOLE_FILE)]
            pieces = pieces_of(extents, 0, PAGE_BYTES)
            locks.lock(name.encode(), pieces, files_of(extents))
    assert locks.unlock(b"d") == (2, 2 * PAGE_BYTES)
    assert [file.path for file in locks.report().listed] == ["dd"]
    assert locks.unlock(b"nothing") == (0, 0)


def test_what_is_locked_when_the_mount_ends_is_released(path, monkeypatch):
    before = locked_by_the_kernel()
    locks = FileLocks(room(limit=SIZE))
    begun, go_on = threading.Event(), threading.Event()
    real = Mapping.lock

    def slowly(self):
        begun.set()
        assert go_on.wait(10)
        real(self)

    monkeypatch.setattr(Mapping, "lock", slowly)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(lock(locks, path)))
    thread.start()
    assert begun.wait(10)
    locks.close()
    go_on.set()
    thread.join(10)
    assert outcomes[0].reason == "the mount is ending"
    assert locked_by_the_kernel() == before


def test_a_range_of_a_file_in_pieces_is_found_in_its_files():
    extents = [Extent(5, 100, 50), Extent(HOLE, 0, 1000), Extent(6, 7, WHOLE_FILE)]
    assert backing_ranges(extents, 0, 10) == [(5, 100, 10)]
    assert backing_ranges(extents, 40, 1020) == [(5, 140, 10), (6, 7, 10)]
    assert backing_ranges(extents, 60, 100) == []
    assert backing_ranges(extents, 1060, 5) == [(6, 17, 5)]


def test_memory_of_the_daemon_s_own_is_not_locked_a_second_time(locks):
    fd = os.memfd_create("bytes")
    try:
        os.write(fd, bytes(SIZE))
        with pytest.raises(OSError, match="in memory already"):
            pieces_of([Extent(fd, 0, SIZE)], 0, SIZE)
    finally:
        os.close(fd)


def test_the_report_lists_no_more_than_fits_into_an_answer(locks, path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_LISTED", 3)
    fd = os.open(path, os.O_RDONLY)
    extents = [Extent(fd, 0, WHOLE_FILE)]
    pieces = pieces_of(extents, 0, PAGE_BYTES)
    for number in range(5):
        locks.lock(b"%d" % number, pieces, files_of(extents))
    os.close(fd)
    report = locks.report()
    assert (report.files, len(report.listed)) == (5, 3)
