import errno
import os
import pathlib
import threading

import pytest

from tests.tree.archive.support import member, nodes, paths, shown, symlink, write
from zcfuse.tree.archive import ArchiveError, DamagedIndexError, Keep, _kept, _open, index_archive

MANY = 4000  # more than are read at once


@pytest.fixture
def archive(tmp_path):
    members = [member(f"d{number % 7}/{number}", data=b"x") for number in range(MANY)]
    return write(tmp_path / "a.tar", *members, symlink("s", "d1/1"))


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.tar", member("a", data=b"a"), symlink("s", "a"))


def beside(archive):
    return archive.with_name(archive.name + ".zcidx")


def refuse_to_build(monkeypatch):
    monkeypatch.setattr(_open, "_build", lambda *_: pytest.fail("the archive was read again"))


@pytest.mark.parametrize("keep", [Keep.CACHE, Keep.BESIDE])
@pytest.mark.parametrize("name", ["archive", "small"])
def test_a_kept_index_is_used_and_says_the_same(request, monkeypatch, keep, name):
    path = request.getfixturevalue(name)
    new = shown(index_archive(path, keep=Keep.NOT))
    first = index_archive(path, keep=keep)
    refuse_to_build(monkeypatch)
    second = index_archive(path, keep=keep)
    assert shown(first) == shown(second) == new
    assert first.kept == second.kept
    assert (first.kept_reason, second.kept_reason) == ("", "")
    assert os.path.exists(second.kept)
    second.close()
    second.close()


def test_the_places_are_the_cache_directory_and_beside_the_archive(small, cache):
    assert index_archive(small).kept.startswith(f"{cache}/zcfuse/archives/")
    assert index_archive(small, keep=Keep.BESIDE).kept == f"{small}.zcidx"
    assert index_archive(small, keep=Keep.NOT).kept is None
    assert os.stat(cache / "zcfuse" / "archives").st_mode & 0o777 == 0o700


def test_small_indexes_share_the_descriptor_of_their_directory(small):
    before = set(os.listdir("/proc/self/fd"))
    copies = [small.with_name(f"{number}.tar") for number in range(20)]
    for copy in copies:
        copy.write_bytes(small.read_bytes())
    indexes = [index_archive(copy) for copy in copies]
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del indexes
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_large_index_gives_its_descriptor_back(archive):
    before = set(os.listdir("/proc/self/fd"))
    index = index_archive(archive)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 2
    index.close()
    del index
    assert set(os.listdir("/proc/self/fd")) == before


def changed_in_place(path):
    with open(path, "r+b") as file:
        file.write(write(path.with_name("other"), member("other")).read_bytes())


def touched(path):
    os.utime(path, ns=(0, 0))


def replaced(path):
    os.rename(write(path.with_name("other"), member("other")), path)


def appended(path):
    with open(path, "ab") as file:
        file.write(bytes(512))


@pytest.mark.parametrize("change", [changed_in_place, touched, replaced, appended])
@pytest.mark.parametrize("keep", [Keep.CACHE, Keep.BESIDE])
def test_the_index_of_a_changed_archive_is_made_anew(small, change, keep):
    index_archive(small, keep=keep)
    change(small)
    index = index_archive(small, keep=keep)
    assert "was not used: the archive has changed since" in index.kept_reason
    assert paths(index) == paths(index_archive(small, keep=Keep.NOT))
    assert index_archive(small, keep=keep).kept_reason == ""


@pytest.mark.parametrize("change", [changed_in_place, touched, replaced, appended])
def test_a_changed_archive_is_stale_to_whoever_opens_it(small, change):
    index = index_archive(small)
    change(small)
    with pytest.raises(OSError, match="the archive has changed") as caught:
        index.open()
    assert caught.value.errno == errno.ESTALE


def test_an_archive_that_is_gone_is_missing(small):
    index = index_archive(small)
    os.unlink(small)
    with pytest.raises(FileNotFoundError):
        index.open()


def test_an_index_of_another_version_is_made_anew(small, monkeypatch):
    monkeypatch.setattr(_kept, "FORMAT_VERSION", 999)
    index_archive(small)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.parent / "cache"))
    index = index_archive(small)
    assert "its format is that of another version" in index.kept_reason


def test_each_byte_of_a_small_index_matters(small):
    kept = index_archive(small).kept
    whole = pathlib.Path(kept).read_bytes()
    expected = shown(index_archive(small))
    for at in range(len(whole)):
        with open(kept, "wb") as file:
            file.write(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        index = index_archive(small)
        assert "was not used" in index.kept_reason, at
        assert "\n" not in index.kept_reason
        assert shown(index) == expected


@pytest.mark.parametrize("left", [0, 1, 100, 150, 200, 400])
def test_an_index_that_was_cut_short_is_made_anew(small, left):
    kept = index_archive(small).kept
    os.truncate(kept, left)
    assert "was not used" in index_archive(small).kept_reason


def test_damage_deep_in_a_large_index_is_an_error_when_it_is_met(archive):
    kept = index_archive(archive).kept
    with open(kept, "r+b") as file:
        file.seek(30_000)
        before = file.read(1)[0]
        file.seek(30_000)
        file.write(bytes([before ^ 1]))
    index = index_archive(archive)
    with pytest.raises(DamagedIndexError, match="does not match its checksum") as caught:
        list(nodes(index))
    assert caught.value.errno == errno.EIO
    index.close()


def test_a_large_index_that_is_cut_while_in_use_is_an_error_and_no_signal(archive):
    index = index_archive(archive)
    os.truncate(index.kept, 1000)
    with pytest.raises(DamagedIndexError):
        list(nodes(index))
    index.close()


@pytest.mark.parametrize("what", ["directory", "fifo", "symlink"])
def test_what_is_no_file_in_the_place_of_an_index_is_not_used(small, what):
    place = beside(small)
    if what == "directory":
        place.mkdir()
    elif what == "fifo":
        os.mkfifo(place)
    else:
        os.symlink("/etc/passwd", place)
    index = index_archive(small, keep=Keep.BESIDE)
    assert f"{place} was not used" in index.kept_reason
    assert paths(index) == {b"a", b"s"}


def test_an_index_of_a_stranger_is_not_used(small):
    if os.geteuid():
        pytest.skip("needs root, to give a file away")
    kept = index_archive(small, keep=Keep.BESIDE).kept
    os.chown(kept, 12345, 12345)
    assert "not a file of the user" in index_archive(small, keep=Keep.BESIDE).kept_reason
    os.chown(small, 12345, 12345)
    index_archive(small, keep=Keep.BESIDE)
    os.chown(beside(small), 12345, 12345)
    assert index_archive(small, keep=Keep.BESIDE).kept_reason == ""


def test_an_index_goes_to_the_cache_where_none_can_be_beside(small, monkeypatch):
    real = _kept.keep

    def keep(place, *arguments):
        if place == os.fsencode(beside(small)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(place, *arguments)

    monkeypatch.setattr(_kept, "keep", keep)
    index = index_archive(small, keep=Keep.BESIDE)
    assert index.kept_reason == f"not kept as {beside(small)}: Read-only file system"
    refuse_to_build(monkeypatch)
    monkeypatch.setattr(_kept, "copy", lambda source, place: keep(place))
    again = index_archive(small, keep=Keep.BESIDE)
    assert (again.kept, again.kept_reason) == (index.kept, index.kept_reason)


def test_an_index_in_the_cache_is_copied_beside_the_archive_on_request(small, monkeypatch):
    expected = shown(index_archive(small))
    refuse_to_build(monkeypatch)
    index = index_archive(small, keep=Keep.BESIDE)
    assert (index.kept, shown(index)) == (f"{small}.zcidx", expected)


def test_an_index_that_can_be_kept_nowhere_serves_from_memory(small, cache):
    cache.write_bytes(b"a file where a directory is needed")
    index = index_archive(small)
    assert index.kept is None
    assert "Not a directory" in index.kept_reason
    assert paths(index) == {b"a", b"s"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_while_writing_leaves_nothing_behind(small, cache, monkeypatch, number):
    def fail(fd):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    index = index_archive(small)
    assert os.strerror(number) in index.kept_reason
    assert os.listdir(cache / "zcfuse" / "archives") == []


def test_writers_at_once_leave_one_whole_index(archive, cache):
    expected = paths(index_archive(archive, keep=Keep.NOT))
    found = []

    def build():
        index = index_archive(archive)
        found.append(paths(index))
        index.close()

    threads = [threading.Thread(target=build) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [expected] * 6
    assert len(os.listdir(cache / "zcfuse" / "archives")) == 1
    assert index_archive(archive).kept_reason == ""


def test_an_archive_that_changes_while_it_is_indexed_is_refused(archive):
    def grow(done, total):
        with open(archive, "ab") as file:
            file.write(b"more")

    with pytest.raises(ArchiveError, match="changed while it was being indexed"):
        index_archive(archive, progress=grow)


def test_progress_goes_forward_and_ends_at_the_size(archive):
    seen = []
    index_archive(archive, progress=lambda done, total: seen.append((done, total)))
    size = os.stat(archive).st_size
    assert seen == sorted(seen)
    assert len(seen) == MANY // 1000 + 1
    assert seen[-1] == (size, size)
    assert all(total == size for _, total in seen)


def test_who_raises_in_progress_ends_the_indexing(archive, cache):
    class StopItError(Exception):
        pass

    def stop(done, total):
        raise StopItError

    with pytest.raises(StopItError):
        index_archive(archive, progress=stop)
    assert not cache.exists()


def test_one_name_by_two_ways_is_one_kept_index(small, monkeypatch):
    os.symlink(small, small.with_name("link"))
    kept = index_archive(small).kept
    assert index_archive(small.with_name("link")).kept == kept
    monkeypatch.chdir(small.parent)
    assert index_archive("small.tar").kept == kept


def test_an_archive_is_found_where_its_directory_went(small):
    index = index_archive(small)
    os.rename(small.parent, f"{small.parent}-moved")
    try:
        os.close(index.open())
    finally:
        os.rename(f"{small.parent}-moved", small.parent)


@pytest.mark.parametrize("what", ["fifo", "symlink", "directory"])
def test_what_is_no_file_in_the_place_of_the_archive_is_stale(small, what):
    index = index_archive(small)
    os.rename(small, small.with_name("moved"))
    if what == "fifo":
        os.mkfifo(small)
    elif what == "symlink":
        os.symlink("moved", small)
    else:
        small.mkdir()
    for call in (index.open, index.check):
        with pytest.raises(OSError, match="the archive has changed") as caught:
            call()
        assert caught.value.errno == errno.ESTALE


def test_the_cache_is_the_users_alone_whatever_the_umask(small, cache):
    before = os.umask(0)
    try:
        kept = index_archive(small).kept
    finally:
        os.umask(before)
    modes = [os.stat(path).st_mode & 0o777 for path in (cache / "zcfuse", kept)]
    assert modes == [0o700, 0o600]
    assert os.stat(os.path.dirname(kept)).st_mode & 0o777 == 0o700


def test_a_cache_directory_that_is_a_link_is_not_followed(small, cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (cache / "zcfuse").mkdir(parents=True)
    (cache / "zcfuse" / "archives").symlink_to(tmp_path / "elsewhere")
    index = index_archive(small)
    assert index.kept is None
    assert "not a directory of this user" in index.kept_reason
    assert os.listdir(tmp_path / "elsewhere") == []
