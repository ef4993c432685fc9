"""Damaged, truncated, foreign or malicious archives: one line each."""

import os
import tarfile
import zipfile

import pytest

from tests.tree.archive.support import (
    directory,
    member,
    nodes,
    opened,
    opened_or_refused,
    paths,
    reasons,
    write,
)
from zcfuse.tree.archive import ArchiveError, Kind, index_archive

CUT = ", the last of which is cut (EIO)"


def refusal(path, **arguments):
    with pytest.raises(ArchiveError) as caught:
        opened(path, **arguments)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path))
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"text\n", "neither a tar nor a zip archive"),
        (b"text\n" * 1000, "neither a tar nor a zip archive"),
        (b"PK\x03\x04" + b"x" * 1000, "the zip archive's directory cannot be read"),
        (bytes(100), "neither a tar nor a zip archive"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, data, reason):
    (tmp_path / "a").write_bytes(data)
    assert refusal(tmp_path / "a").startswith(reason)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        assert refusal(path).startswith("not a regular file")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "missing")


def test_a_path_with_a_line_break_stays_one_line(tmp_path):
    (tmp_path / "a\nb").write_bytes(b"")
    with pytest.raises(ArchiveError) as caught:
        opened(tmp_path / "a\nb")
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def three(tmp_path):
    return write(tmp_path / "a.tar", *[member(name, data=b"x" * 600) for name in "abc"])


def test_a_damaged_header_is_an_error_with_its_place(three):
    with open(three, "r+b") as file:
        file.seek(1536 + 20)
        file.write(b"damage")
    assert refusal(three) == "no readable tar header at byte 1536, after 1 member (bad checksum)"


def test_salvage_takes_what_is_before_a_damaged_header(three):
    with open(three, "r+b") as file:
        file.seek(3072 + 20)
        file.write(b"damage")
    index = index_archive(three, salvage=True)
    assert paths(index) == {b"a", b"b"}
    assert (index.kept, index.kept_reason.startswith("the archive is damaged")) == (None, True)
    refusal(three)
    assert list(reasons(index)) == [
        "no readable tar header at byte 3072, after 2 members (bad checksum)"
    ]


def test_an_archive_that_was_cut_off_is_refused(three):
    """At any place after the first header: in a member, between two, before the last block."""
    whole = three.read_bytes()
    end = 3 * 1536
    for length, lost in [(600, CUT), (1536, ""), (end, ""), (end + 9, "")]:
        three.write_bytes(whole[:length])
        count = -(-length // 1536) if length <= end else 3
        members = "1 member" if count == 1 else f"{count} members"
        assert refusal(three) == f"it was cut off at byte {length}, after {members}{lost}"
    three.write_bytes(whole[: end + 512])
    assert opened(three).damage == ""


def test_a_member_that_is_cut_off_cannot_be_read_and_the_others_can(three):
    os.truncate(three, 3072 + 512 + 100)
    index = index_archive(three, salvage=True)
    assert index.damage == f"it was cut off at byte 3684, after 3 members{CUT}"
    assert (index.members, index.kept) == (3, None)
    found = {path: index.member(node) for path, node in nodes(index)}
    assert [found[name].kind for name in (b"a", b"b", b"c")] == [
        Kind.FILE,
        Kind.FILE,
        Kind.UNREADABLE,
    ]
    assert found[b"c"].reason == "the archive ends before the member does"


def test_a_tar_cut_at_any_place_is_an_index_or_one_line(tmp_path):
    header, data = member("long/" * 60 + "name", data=b"x" * 700)
    path = write(tmp_path / "a.tar", member("a"), (header, data), directory("d"))
    whole = path.read_bytes()
    for length in range(len(whole), 0, -97):
        os.truncate(path, length)
        assert opened_or_refused(path) is None or length > len(whole) - 10240
        index = opened_or_refused(path, salvage=True)
        if index is not None:
            assert all(run.length for _, node in nodes(index) for run in readable(index, node))


def readable(index, node):
    member = index.member(node)
    if member.kind not in (Kind.FILE, Kind.SPARSE):
        return []
    runs = list(index.runs(node))
    for run in runs:
        assert run.offset is None or run.offset + run.length <= index.identity.size
    assert sum(run.length for run in runs) == member.size
    return runs


def test_a_zip_cut_at_any_place_is_one_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in "abc":
            archive.writestr(name, name * 100)
    whole = (tmp_path / "a.zip").read_bytes()
    for length in range(1, len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:length])
        refusal(tmp_path / "a.zip")


def header(**fields):
    """Return a ustar header with these raw fields and a valid checksum."""
    places = {"size": (124, 12), "mode": (100, 8), "type": (156, 1), "mtime": (136, 12)}
    block = bytearray(tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT))
    for field, value in fields.items():
        start, length = places[field]
        block[start : start + length] = value.ljust(length, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def base256(number):
    return (
        b"\xff" + (2**88 + number).to_bytes(11, "big")
        if number < 0
        else (b"\x80" + number.to_bytes(11, "big"))
    )


@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**60)])
def test_a_negative_size_does_not_lead_back(tmp_path, size):
    (tmp_path / "a.tar").write_bytes(header() + header(size=base256(size)) + bytes(1024))
    index = opened_or_refused(tmp_path / "a.tar")
    if index is not None:
        assert index.member(index.lookup(0, b"a")).kind == Kind.UNREADABLE


@pytest.mark.parametrize("size", [2**40, 2**63 - 1, 2**63, 2**70])
def test_a_size_beyond_the_archive_cannot_be_read(tmp_path, size):
    (tmp_path / "a.tar").write_bytes(header(size=base256(size)) + bytes(1024))
    assert refusal(tmp_path / "a.tar").startswith("it was cut off at byte 1536, after 1 member")
    index = opened(tmp_path / "a.tar", salvage=True)
    assert index.member(index.lookup(0, b"a")).kind == Kind.UNREADABLE


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", [2**30, 2**62, 10])
def test_a_header_that_promises_more_headers_is_one_line(tmp_path, kind, size):
    block = header(type=kind, size=base256(size))
    (tmp_path / "a.tar").write_bytes(header() + block + b"10 path=ab" + bytes(502))
    assert refusal(tmp_path / "a.tar").startswith("no readable tar header at byte 512")


def test_a_thousand_headers_of_one_member_are_one_line(tmp_path):
    block = header(type=b"L", size=b"00000000001") + b"a".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(header() + block * 5000 + header() + bytes(1024))
    assert refusal(tmp_path / "a.tar").startswith("no readable tar header at byte 512")


def sparse(tmp_path, pieces, size, data=b"x" * 2048):
    made, _ = member("s", data=data)
    made.pax_headers = {
        "GNU.sparse.size": str(size),
        "GNU.sparse.map": ",".join(f"{start},{length}" for start, length in pieces),
        "GNU.sparse.name": "sparse",
    }
    index = opened(write(tmp_path / "a.tar", (made, data), member("after")))
    assert paths(index) == {b"sparse", b"after"}
    return index, index.member(index.lookup(0, b"sparse"))


def test_a_sparse_map_in_order_is_taken(tmp_path):
    index, found = sparse(tmp_path, [(0, 512), (10_000, 1024), (20_000, 0)], 20_000)
    runs = list(index.runs(found.node))
    assert [run.length for run in runs] == [512, 9488, 1024, 8976]
    assert [run.offset is None for run in runs] == [False, True, False, True]


@pytest.mark.parametrize(
    ("pieces", "size", "reason"),
    [
        ([(0, 512), (100, 512)], 5000, "its sparse map is not in order"),
        ([(1000, 512), (0, 512)], 5000, "its sparse map is not in order"),
        ([(0, 512), (5000, 512)], 5000, "its sparse map is not in order"),
        ([(0, 100), (1000, 512)], 5000, "its sparse map is not aligned to blocks"),
        ([(0, 2**40)], 2**41, "the archive ends before the member does"),
        ([(0, 512)], 2**63, "no file can have its size"),
    ],
)
def test_a_sparse_map_that_makes_no_sense_cannot_be_read(tmp_path, pieces, size, reason):
    _, found = sparse(tmp_path, pieces, size)
    assert (found.kind, found.reason) == (Kind.UNREADABLE, reason)


def test_a_sparse_size_without_a_map_cannot_be_read(tmp_path):
    made, data = member("s", data=b"x" * 100)
    made.pax_headers = {"GNU.sparse.realsize": "5000"}
    index = opened(write(tmp_path / "a.tar", (made, data)))
    assert index.member(index.lookup(0, b"s")).reason == "it is sparse, and its map is missing"
