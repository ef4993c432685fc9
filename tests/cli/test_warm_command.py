"""`zcfuse warm` without a mount: finding files, splitting them, interrupts."""

import os
from types import SimpleNamespace

import pytest

from zcfuse.admin._messages import (
    MOST_BYTES,
    MOST_FILES,
    LockOutcome,
    LockReply,
    UnlockReply,
)
from zcfuse.cli._mount_paths import MountPath, MountPaths
from zcfuse.cli.warm import _command as warm
from zcfuse.cli.warm import _locking
from zcfuse.cli.warm._files import FoundFile, find_files, jobs_of, pieces_of
from zcfuse.cli.warm._locking import Locker
from zcfuse.linux import nodeid_of
from zcfuse.linux._mapping import PAGE_BYTES
from zcfuse.linux._mount_table import MountEntry

MIB = 1 << 20


def entry(mountpoint, *, minor=50, root="/", fstype="fuse.zcfuse"):
    return MountEntry(1, 0, 0, minor, root, mountpoint, (), fstype, "source", ())


MOUNT = entry("/mnt/zc")


def found(name, size, mount=MOUNT):
    place = None if mount is None else MountPath(mount, name.encode())
    return FoundFile(f"/mnt/zc/{name}", size, place)


@pytest.mark.parametrize(
    ("path", "minor", "mountpoint", "name"),
    [
        ("/mnt/zc/a/b", 50, "/mnt/zc", b"a/b"),
        ("/mnt/zc", 50, "/mnt/zc", b""),
        ("/bound/b", 50, "/bound", b"a/b"),
        ("/bound", 50, "/bound", b"a"),
        ("/mnt/zc/inner/x", 51, "/mnt/zc/inner", b"x"),
    ],
)
def test_a_path_is_found_in_the_mount_that_shows_it(path, minor, mountpoint, name):
    mounts = [MOUNT, entry("/bound", root="/a"), entry("/mnt/zc/inner", minor=51)]
    place = MountPaths(mounts).find(path, os.makedev(0, minor))
    assert (place.mount.mountpoint, place.path) == (mountpoint, name)


def test_a_path_beside_a_mount_or_of_another_kind_of_filesystem_is_in_none():
    places = MountPaths([MOUNT, entry("/other", minor=52, fstype="fuse.sshfs")])
    assert places.find("/mnt/zcx/a", os.makedev(0, 50)) is None
    assert places.find("/other/a", os.makedev(0, 52)) is None
    assert places.find("/mnt/zc/a", os.makedev(8, 1)) is None


def test_a_file_without_a_handle_has_no_nodeid():
    with open("/proc/self/stat", "rb") as file:
        assert nodeid_of(file.fileno()) == 0


def test_files_are_found_once_and_links_below_directories_are_not_followed(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x" * 10)
    (tmp_path / "d" / "link").symlink_to("file")
    (tmp_path / "link").symlink_to("d/file")
    os.mkfifo(tmp_path / "d" / "fifo")
    failures = []
    given = [str(tmp_path / "link"), str(tmp_path / "d"), str(tmp_path / "d" / "fifo")]
    files = find_files(given, failures)
    assert [(file.path, file.size) for file in files] == [(str(tmp_path / "d" / "file"), 10)]
    assert failures == [(given[2], "neither a regular file nor a directory")]


def test_jobs_are_no_larger_than_a_request_and_of_one_mount_each():
    other = entry("/mnt/other", minor=51)
    files = [found(str(number), 10) for number in range(MOST_FILES + 1)]
    files += [found("big", 2 * MOST_BYTES + 5), found("there", 10, other), found("none", 0)]
    jobs = list(jobs_of(files))
    # The last small file does not fit beside a whole piece, and a batch holds one mount.
    assert [len(job) for job in jobs] == [MOST_FILES, 1, 1, 1, 1, 1]
    assert all(sum(piece.length for piece in job) <= MOST_BYTES for job in jobs)
    assert all(len({piece.file.place.mount for piece in job}) == 1 for job in jobs)
    assert sum(piece.length for job in jobs for piece in job) == sum(file.size for file in files)


def locker(limit, monkeypatch, answer):
    asked = []

    def ask(mount, request, *, timeout):
        asked.extend((file.path, file.offset, file.length) for file in request.files)
        return LockReply([answer(file) for file in request.files])

    monkeypatch.setattr(_locking, "ask", ask)
    done = []
    made = Locker(limit, done.append)
    return made, asked, done


def test_no_more_is_asked_for_than_was_allowed(monkeypatch):
    made, asked, done = locker(5 * MIB, monkeypatch, lambda file: LockOutcome(file.length, 0))
    made.run(jobs_of([found("a", 3 * MIB), found("b", 3 * MIB), found("c", 3 * MIB)]))
    assert asked == [(b"a", 0, 3 * MIB), (b"b", 0, 2 * MIB)]
    assert (made.tally.locked, made.tally.left_out) == (5 * MIB, 4 * MIB)
    assert [path for path, _ in made.failures] == ["/mnt/zc/b", "/mnt/zc/c"]
    assert sum(done) == 9 * MIB


def test_a_daemon_without_room_is_not_asked_again(monkeypatch):
    made, asked, _ = locker(
        1 << 40, monkeypatch, lambda file: LockOutcome(0, 0, "memory is short", refused=True)
    )
    made.run(jobs_of([found("a", MOST_BYTES), found("b", MOST_BYTES)]))
    assert [path for path, *_ in asked] == [b"a"]
    assert made.failures == [("/mnt/zc/a", "memory is short"), ("/mnt/zc/b", "memory is short")]
    assert made.tally.left_out == 2 * MOST_BYTES


def test_a_daemon_that_had_to_lock_more_is_asked_for_nothing_else(monkeypatch):
    # Like members of an archive: each member's page spans two of the archive's.
    made, asked, _ = locker(
        2 * MIB, monkeypatch, lambda file: LockOutcome(file.length + PAGE_BYTES, 0)
    )
    made.run(jobs_of([found("a", 2 * MIB), found("b", MOST_BYTES), found("c", MIB)]))
    assert asked == [(b"a", 0, 2 * MIB)]
    assert made.tally.left_out == MOST_BYTES + MIB
    assert {reason for _, reason in made.failures} == {"over --lock 2.0 MiB"}


def test_a_limit_that_is_no_whole_number_of_pages_is_not_gone_below(monkeypatch):
    made, asked, _ = locker(PAGE_BYTES + 904, monkeypatch, lambda file: LockOutcome(0, 0))
    made.run(jobs_of([found("a", PAGE_BYTES + 404), found("b", PAGE_BYTES)]))
    assert asked == [(b"a", 0, PAGE_BYTES + 404)]


@pytest.mark.parametrize("count", [0, 1, MOST_FILES, MOST_FILES + 1])
def test_as_many_files_as_are_named_are_unlocked(count, monkeypatch):
    asked = []

    def ask(mount, request, *, timeout):
        assert len(request.files) <= MOST_FILES
        asked.append([file.path for file in request.files])
        return UnlockReply(len(request.files), 10 * len(request.files))

    monkeypatch.setattr(_locking, "ask", ask)
    names = [b"%d" % number for number in range(count)]
    assert _locking.unlock(MOUNT, names) == UnlockReply(count, 10 * count)
    assert [name for part in asked for name in part] == names
    # The empty list of names means everything, so it is sent only without a path.
    assert ([] in asked) == (count == 0)


def test_an_interrupt_ends_it_with_a_line_on_what_is_locked(monkeypatch, capsys):
    def interrupted(self, jobs):
        self.tally.locked = MIB
        raise KeyboardInterrupt

    locks = SimpleNamespace(bytes=3 * MIB)
    monkeypatch.setattr(Locker, "run", interrupted)
    monkeypatch.setattr(warm, "find_files", lambda paths, failures: [found("a", 9 * MIB)])
    monkeypatch.setattr(warm, "read_status_of", lambda mount: SimpleNamespace(locks=locks))
    assert warm._warm(["/mnt/zc"], 1 << 30, as_json=False) == 130
    first, second = capsys.readouterr().err.splitlines()
    assert first == "zcfuse warm: 1 file, 9.0 MiB; 1.0 MiB locked; interrupted"
    assert second.startswith("zcfuse warm: /mnt/zc: 3.0 MiB stay locked")


def test_many_failures_of_one_reason_are_counted(capsys):
    failures = [(f"/f{number}", "over --lock 1.0 MiB") for number in range(9)]
    warm._print_failures([*failures, ("/x", "Permission denied")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[5] == "and 4 files more (over --lock 1.0 MiB): --json has them all"
    assert lines[6:] == ["/x: Permission denied"]


def test_a_large_file_is_cut_at_what_one_request_may_lock():
    pieces = pieces_of(found("big", 2 * MOST_BYTES + 5))
    assert [(piece.offset, piece.length) for piece in pieces] == [
        (0, MOST_BYTES),
        (MOST_BYTES, MOST_BYTES),
        (2 * MOST_BYTES, 5),
    ]
