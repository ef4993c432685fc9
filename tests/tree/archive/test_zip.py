import os
import stat
import struct
import time
import zipfile

import pytest

from tests.tree.archive import support
from tests.tree.archive.support import nodes, opened, paths, reasons, shown
from zcfuse.tree.archive import BadMemberError, Kind, unpack

METHODS = {
    zipfile.ZIP_DEFLATED: Kind.DEFLATED,
    zipfile.ZIP_BZIP2: Kind.BZIP2,
    zipfile.ZIP_LZMA: Kind.LZMA,
}
DATA = bytes(range(256)) * 5000 + b"end"


def at(index, path):
    return dict(nodes(index))[path]


def info(name, mode=stat.S_IFREG | 0o640, **fields):
    made = zipfile.ZipInfo(name, (2020, 2, 29, 12, 0, 2))
    made.external_attr = mode << 16
    made.create_system = 3
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def write(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for made, data in members:
            archive.writestr(made, data)
    return path


def patch(path, old, new, count=-1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))


def contents(path):
    return {name: seen.content for name, seen in shown(opened(path))[0].items()}


def test_stored_members_are_runs_of_the_archive(tmp_path):
    path = write(tmp_path / "a.zip", (info("a/b"), DATA), (info("empty"), b""))
    index = opened(path)
    node = at(index, b"a/b")
    (run,) = index.runs(node)
    assert path.read_bytes()[run.offset : run.offset + run.length] == DATA
    assert list(index.runs(at(index, b"empty"))) == []
    assert index.member(node).mode == stat.S_IFREG | 0o640
    assert index.container == "zip"


@pytest.mark.parametrize("method", METHODS)
def test_packed_members_are_unpacked_and_checked(tmp_path, method):
    path = write(tmp_path / "a.zip", (info("a", compress_type=method), DATA))
    index = opened(path)
    member = index.member(at(index, b"a"))
    assert (member.kind, member.size) == (METHODS[method], len(DATA))
    assert contents(path) == {b"a": DATA}
    with pytest.raises(OSError, match=r"\[Errno 22\]"):
        index.runs(member.node)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "shorter", "sum"])
def test_a_damaged_packed_member_is_an_error_of_its_own(tmp_path, method, damage):
    path = write(tmp_path / "a.zip", (info("a", compress_type=method), os.urandom(3000)))
    index = opened(path)
    member = index.member(at(index, b"a"))
    changes = {
        "flip": {},
        "cut": {"stored": member.stored // 2},
        "longer": {"size": member.size + 1},
        "shorter": {"size": member.size - 1},
        "sum": {"crc": member.crc ^ 1},
    }
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[member.offset + member.stored // 2] ^= 0x10
        path.write_bytes(data)
    written = []
    fields = {name: getattr(member, name) for name in member.__struct_fields__}
    changed = type(member)(**{**fields, **changes[damage]})
    with open(path, "rb") as file, pytest.raises(BadMemberError) as caught:
        unpack(file.fileno(), changed, written.append)
    assert caught.value.errno == 5
    assert "\n" not in caught.value.reason
    assert sum(map(len, written)) <= changed.size


def test_a_bomb_is_stopped_at_the_declared_size(tmp_path):
    path = write(tmp_path / "a.zip", (info("a", compress_type=8), bytes(50_000_000)))
    patch(path, struct.pack("<L", 50_000_000), struct.pack("<L", 1000))
    index = opened(path)
    written = []
    fd = index.open()
    with pytest.raises(BadMemberError, match="longer than the archive says"):
        unpack(fd, index.member(at(index, b"a")), written.append)
    os.close(fd)
    assert written == []


def test_lzma_asks_for_no_more_memory_than_the_member_is_large(tmp_path):
    path = write(tmp_path / "a.zip", (info("a", compress_type=14), DATA))
    index = opened(path)
    data = bytearray(path.read_bytes())
    start = index.member(at(index, b"a")).offset + 5
    data[start : start + 4] = b"\xff\xff\xff\xff"  # a dictionary of 4 GiB
    path.write_bytes(data)
    assert contents(path) == {b"a": DATA}


def test_directories_symlinks_and_devices(tmp_path):
    path = write(
        tmp_path / "a.zip",
        (info("d/", stat.S_IFDIR | 0o700), b""),
        (info("d/s", stat.S_IFLNK | 0o777), b"../target"),
        (info("d/p", stat.S_IFLNK | 0o777, compress_type=8), b"packed" * 20),
        (info("fifo", stat.S_IFIFO | 0o600), b""),
        (info("long", stat.S_IFLNK | 0o777), b"x" * 4096),
        (info("none", stat.S_IFLNK | 0o777), b""),
    )
    index = opened(path)
    assert paths(index) == {b"d", b"d/s", b"d/p"}
    assert index.readlink(at(index, b"d/s")) == b"../target"
    assert index.readlink(at(index, b"d/p")) == b"packed" * 20
    assert index.member(at(index, b"d")).mode == stat.S_IFDIR | 0o700
    assert reasons(index) == {
        "a device, FIFO or socket": 1,
        "a symlink's target is longer than 4095 bytes": 1,
        "a symlink without a target": 1,
    }


def test_an_archive_without_modes_gets_usual_ones(tmp_path):
    path = write(
        tmp_path / "a.zip",
        (info("f", external_attr=0x20), b""),
        (info("d/", external_attr=0x10), b""),
    )
    index = opened(path)
    assert index.member(at(index, b"f")).mode == stat.S_IFREG | 0o644
    assert index.member(at(index, b"d")).mode == stat.S_IFDIR | 0o755


def test_an_encrypted_member_cannot_be_read_and_the_others_can(tmp_path):
    path = write(tmp_path / "a.zip", (info("secret"), b"1"), (info("open"), b"2"))
    central = path.read_bytes().index(b"PK\1\2")
    data = bytearray(path.read_bytes())
    data[central + 8] |= 1
    path.write_bytes(data)
    index = opened(path)
    broken = index.member(at(index, b"secret"))
    assert (broken.kind, broken.reason, broken.size) == (Kind.UNREADABLE, "it is encrypted", 1)
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        index.runs(broken.node)
    assert [run.length for run in index.runs(at(index, b"open"))] == [1]


def test_an_unknown_method_cannot_be_read(tmp_path):
    path = write(tmp_path / "a.zip", (info("a"), b"1"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 10] = 93
    path.write_bytes(data)
    assert reasons(opened(path)) == {"cannot be read (EIO): compression method 93 is not known": 1}


def test_a_directory_that_lies_about_a_member_is_found_out(tmp_path):
    path = write(tmp_path / "a.zip", (info("aaaa"), b"1"), (info("bbbb"), b"2"))
    patch(path, b"aaaa", b"xxxx", 1)  # the local header comes first
    index = opened(path)
    assert index.member(at(index, b"aaaa")).reason == "its local header has another name"
    assert index.member(at(index, b"bbbb")).kind == Kind.FILE


def test_two_sizes_of_a_stored_member_must_agree(tmp_path):
    path = write(tmp_path / "a.zip", (info("a"), b"12345"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 24] = 9
    path.write_bytes(data)
    assert opened(path).member(1).reason == "it is stored, and its two sizes differ"


def test_names_are_the_archives_bytes_or_code_page_437_where_dos_made_them(tmp_path):
    path = write(
        tmp_path / "a.zip",
        (info("utf-8 ü"), b""),
        (info("raw"), b""),
        (info("dos", create_system=0), b""),
    )
    patch(path, b"raw", b"\x81aw")
    patch(path, b"dos", b"\x81os")
    assert paths(opened(path)) == {"utf-8 ü".encode(), b"\x81aw", "üos".encode()}


def test_times_are_those_of_the_extended_timestamp_else_local(tmp_path):
    stamp = struct.pack("<HHBl", 0x5455, 5, 1, 1_600_000_000)
    path = write(tmp_path / "a.zip", (info("utc", extra=stamp), b""), (info("local"), b""))
    index = opened(path)
    assert index.member(at(index, b"utc")).mtime_ns == 1_600_000_000 * 10**9
    expected = int(time.mktime((2020, 2, 29, 12, 0, 2, 0, 0, -1)))
    assert index.member(at(index, b"local")).mtime_ns == expected * 10**9


def test_the_last_of_several_members_of_a_name_wins(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write(tmp_path / "a.zip", (info("a"), b"1"), (info("a"), b"22"))
    assert contents(path) == {b"a": b"22"}


def test_a_zip_behind_a_program_is_found(tmp_path):
    path = write(tmp_path / "a.zip", (info("a"), b"stored"))
    path.write_bytes(b"#!/bin/sh\n" * 100 + path.read_bytes())
    assert contents(path) == {b"a": b"stored"}


def test_a_zip64_archive_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        with archive.open(info("big"), "w", force_zip64=True) as file:
            file.write(b"zip64")
        for number in range(70_000):
            archive.writestr(f"{number}", b"")
    index = opened(tmp_path / "a.zip")
    assert len(index) == 70_001
    assert [run.length for run in index.runs(index.lookup(0, b"big"))] == [5]


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path):
    inner = write(tmp_path / "a.zip", (info("a"), b"1")).read_bytes()
    outer = support.write(tmp_path / "a.tar", support.member("a.zip", data=inner))
    assert paths(opened(outer)) == {b"a.zip"}


def test_who_raises_in_progress_ends_the_indexing(tmp_path):
    class StopItError(Exception):
        pass

    def stop(done, total):
        raise StopItError

    path = write(tmp_path / "a.zip", *[(info(f"{number}"), b"") for number in range(1500)])
    with pytest.raises(StopItError):
        opened(path, progress=stop)
