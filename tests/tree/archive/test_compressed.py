"""Compressed tar archives: their members, their damage and their limits. docs/archives.md."""

import gzip
import importlib
import io
import lzma
import os
import random
import shutil
import signal
import subprocess
import tarfile

import pytest

from tests.tree.archive.support import (
    extracted,
    make_holes,
    member,
    opened,
    paths,
    tar,
    write,
)
from tests.tree.archive.test_tree import opened as open_member
from tests.tree.archive.test_tree import resolve
from zcfuse.tree.archive import (
    Archive,
    ArchiveError,
    BadMemberError,
    Keep,
    Kind,
    NotAnArchiveError,
    UnpackBudget,
    indexing_process,
)

MIB = 1 << 20

COMPRESSORS = {
    "gz": ["gzip", "-1"],
    "bz2": ["bzip2"],
    "xz": ["xz", "-1", "--threads=2", "--block-size=1MiB"],
    "zst": ["zstd", "--quiet"],
}

SALVAGED = ("gz", "bz2")
"""The formats whose library reads a stream without its end."""

every_format = pytest.mark.parametrize("ending", COMPRESSORS)


def compressed(path, ending):
    """Compress a file with the ordinary program, as its own neighbour."""
    name = f"{path}.{ending}"
    with open(path, "rb") as source, open(name, "wb") as file:
        subprocess.run(COMPRESSORS[ending], stdin=source, stdout=file, check=True, timeout=60)
    return name


def bytes_of(tree, path):
    file = open_member(tree, resolve(tree, path))
    try:
        return file.pread(file.attributes().size + 1, 0)
    finally:
        file.close()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A tar archive with members of all kinds, and what GNU tar extracts from it."""
    base = tmp_path_factory.mktemp("packed")
    source = base / "tree"
    (source / "below").mkdir(parents=True)
    noise = random.Random(5)
    for number, size in enumerate((0, 1, 511, 512, 513, 70_000, 2_000_000)):
        half = noise.randbytes(size // 2)
        (source / "below" / f"{number}").write_bytes(half + bytes(size - len(half)))
    (source / ("long" * 50)).write_bytes(b"a long name")
    make_holes(source / "holes", [1, 9], 40 * 65536 + 100)
    os.link(source / "below" / "5", source / "linked")
    os.symlink("below/6", source / "soft")
    tar(base / "a.tar", source, "--sparse", "--format=pax")
    return base / "a.tar", extracted(base / "a.tar", base / "x")[0]


@every_format
def test_the_members_are_what_tar_extracts_in_any_order(packed, ending, tmp_path):
    path, expected = packed
    tree = Archive(compressed(shutil.copy(path, tmp_path), ending), keep=Keep.NOT)
    try:
        assert tree.index.container == f"tar.{ending}"
        assert paths(tree.index) == {os.fsencode(name) for name in expected}
        files = {name: seen for name, seen in expected.items() if seen.mode >> 12 == 0o10}
        assert len(files) == 10
        for name in random.Random(ending).sample(sorted(files), len(files)):
            assert bytes_of(tree, os.fsdecode(name)) == files[name].content
    finally:
        tree.close()


@every_format
def test_a_kept_index_brings_its_seek_points(packed, ending, tmp_path):
    name = compressed(shutil.copy(packed[0], tmp_path), ending)
    first, again = Archive(name), Archive(name)
    try:
        assert (first.index.reused, again.index.reused) == (False, True)
        assert again.index.seek_points() == first.index.seek_points()
        assert bool(first.index.seek_points()) == (ending != "xz")
        assert bytes_of(again, "below/6") == packed[1][b"below/6"].content
    finally:
        first.close()
        again.close()


def test_seek_points_let_a_member_at_the_end_be_read_alone(tmp_path):
    text = random.Random(1).randbytes(12 * MIB).hex().encode()
    path = write(tmp_path / "a.tar", member("large", data=text), member("last", data=b"end"))
    tree = Archive(compressed(path, "gz"), keep=Keep.NOT)
    try:
        assert len(tree.index.seek_points()) > 3 * 10_000
        assert bytes_of(tree, "last") == b"end"
        assert tree.unpacked().members == 1
    finally:
        tree.close()


def test_archives_of_one_budget_share_their_processes(tmp_path):
    budget = UnpackBudget()
    names = []
    for number in range(6):
        path = write(tmp_path / f"{number}.tar", member("a", data=b"%d" % number))
        names.append(compressed(path, "gz"))
    trees = [Archive(name, keep=Keep.NOT, budget=budget) for name in names]
    for _ in range(2):
        assert [bytes_of(tree, "a") for tree in trees] == [b"%d" % number for number in range(6)]
    processes = [unpacker._process for unpacker in budget.streams._idle]
    assert 1 <= len(processes) <= 2
    for tree in trees:
        tree.close()
    assert all(process._process.returncode is not None for process in processes)


def test_an_archive_without_its_library_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "rapidgzip.py").write_text("raise ImportError\n")
    name = compressed(write(tmp_path / "a b.tar", member("a")), "gz")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    with indexing_process(), pytest.raises(NotAnArchiveError) as caught:
        opened(name)
    assert str(caught.value) == (
        f"{name}: compressed with gzip, which needs rapidgzip: pip install 'zcfuse[compressed]';"
        f" or decompress it first: gzip -dk '{name}'"
    )


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\x04\x22\x4d\x18", "compressed with lz4, in which no library seeks; decompress it"),
        (b"LZIP", "compressed with lzip, in which no library seeks; decompress it"),
        (gzip.compress(b"text" * 1000, mtime=0), "compressed with gzip, and no tar archive in it"),
        (gzip.compress(b"", mtime=0), "compressed with gzip, and no tar archive in it"),
        (b"\x1f\x8b" + bytes(600), "its gzip stream is damaged or cut off"),
        (lzma.compress(b"x" * 5000)[:-20], "its xz stream is damaged or cut off"),
        (b"BZh9" + bytes(600), "its bzip2 stream is damaged or cut off"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "its zstd stream is damaged or cut off"),
        (b"\x50\x2a\x4d\x18" + b"\xff" * 600, "its zstd stream is damaged or cut off"),
    ],
)
def test_what_is_no_compressed_tar_is_refused(tmp_path, start, reason):
    (tmp_path / "a").write_bytes(start)
    with pytest.raises(ArchiveError) as caught:
        opened(tmp_path / "a")
    assert caught.value.reason.startswith(reason)


@every_format
def test_a_cut_archive_is_refused_and_salvaged_where_it_can_be(tmp_path, ending):
    noise = random.Random(2)
    members = [member(f"{number}", data=noise.randbytes(100_000)) for number in range(40)]
    name = compressed(write(tmp_path / "a.tar", *members), ending)
    os.truncate(name, os.path.getsize(name) // 2)
    with pytest.raises(ArchiveError, match="cut off") as caught:
        opened(name)
    assert caught.value.salvageable == (ending in SALVAGED)
    if ending not in SALVAGED:
        return
    tree = Archive(name, keep=Keep.NOT, salvage=True)
    try:
        assert {b"0", b"1"} < paths(tree.index) < {b"%d" % number for number in range(40)}
        assert bytes_of(tree, "0") == members[0][1]
        assert bytes_of(tree, "1") == members[1][1]
        assert "cut off" in tree.index.damage
    finally:
        tree.close()


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_changed_byte_is_one_line(tmp_path, ending):
    noise = random.Random(3)
    members = [member(f"{number}", data=noise.randbytes(200_000)) for number in range(4)]
    name = compressed(write(tmp_path / "a.tar", *members), ending)
    with open(name, "r+b") as file:
        file.seek(os.path.getsize(name) * 2 // 3)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))
    with pytest.raises(ArchiveError, match="stream is damaged or cut off"):
        opened(name)


def test_a_member_that_the_seek_points_miss_gives_eio(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", member("a", data=b"a" * 5000), member("b", data=b"b" * 5000))
    tree = Archive(compressed(path, "gz"), keep=Keep.NOT)
    monkeypatch.setattr(type(tree.index), "seek_points", lambda self: b"no seek points")
    try:
        with pytest.raises(BadMemberError):
            bytes_of(tree, "b")
        assert sum(tree.unpacked().reasons.values()) == 1
    finally:
        tree.close()


def test_a_process_that_is_killed_gives_eio_for_that_member_alone(tmp_path):
    path = write(tmp_path / "a.tar", member("a", data=b"a" * 5000), member("b", data=b"b" * 5000))
    tree = Archive(compressed(path, "gz"), keep=Keep.NOT)
    try:
        assert bytes_of(tree, "a") == b"a" * 5000
        (unpacker,) = tree._budget.streams._idle
        os.kill(unpacker._process._process.pid, signal.SIGKILL)
        with pytest.raises(BadMemberError, match="SIGKILL"):
            bytes_of(tree, "b")
        tree.close()
        tree = Archive(path.with_suffix(".tar.gz"), keep=Keep.NOT)
        assert bytes_of(tree, "b") == b"b" * 5000
    finally:
        tree.close()


def bomb(path, size):
    """Write a tar archive of one member of zeros, compressed a thousandfold."""
    header = tarfile.TarInfo("zeros")
    header.size = size
    part = gzip.compress(bytes(16 * MIB))
    with open(path, "wb") as file:
        file.write(gzip.compress(header.tobuf()))
        for _ in range(size // (16 * MIB) + 1):
            file.write(part)
    return path


def test_a_bomb_costs_no_more_time_than_its_size_allows(tmp_path, monkeypatch):
    limits = importlib.import_module("zcfuse.tree.archive._limits")
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0)
    monkeypatch.setattr(limits, "BYTES_PER_SECOND", 2**60)
    # The process may have worked for two seconds before the limit ends it; this takes many.
    name = bomb(tmp_path / "a.tar.gz", 7 * 1024 * MIB)
    assert os.path.getsize(name) < 16 * MIB
    with indexing_process(), pytest.raises(ArchiveError, match="more than 0 s of processor time"):
        opened(name)


def test_a_bomb_is_shown_but_does_not_fit_the_budget(tmp_path):
    tree = Archive(bomb(tmp_path / "a.tar.gz", 64 * MIB), keep=Keep.NOT, budget=8 * MIB)
    try:
        assert tree.index.member(tree.index.lookup(0, b"zeros")).kind == Kind.STREAMED
        with pytest.raises(OSError, match="no room in the budget"):
            bytes_of(tree, "zeros")
    finally:
        tree.close()


def test_a_zstd_archive_of_several_frames_has_a_seek_point_each(tmp_path):
    data = io.BytesIO()
    noise = random.Random(4).randbytes(3 * MIB)
    with tarfile.open(fileobj=data, mode="w") as archive:
        header = tarfile.TarInfo("a")
        header.size = len(noise)
        archive.addfile(header, io.BytesIO(noise))
    name = tmp_path / "a.tar.zst"
    with open(name, "wb") as file:
        # pzstd begins each frame with the size of the next, in a frame without data.
        file.write(b"\x50\x2a\x4d\x18\x04\x00\x00\x00\x00\x00\x00\x00")
        for start in range(0, len(data.getvalue()), MIB):
            part = data.getvalue()[start : start + MIB]
            done = subprocess.run(["zstd", "-qc"], input=part, capture_output=True, check=True)
            file.write(done.stdout)
    tree = Archive(name, keep=Keep.NOT)
    try:
        assert len(tree.index.seek_points()) > 4 * 6
        assert bytes_of(tree, "a") == noise
    finally:
        tree.close()
