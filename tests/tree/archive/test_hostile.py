"""Archives that attack memory or time: the indexer soon returns one line or a tree."""

import io
import os
import resource
import struct
import subprocess
import tarfile
import zipfile

import pytest

from tests.tree.archive.support import member, opened, paths, reasons, write
from zcfuse.tree.archive import ArchiveError, _indexer, _limits, index_archive, indexing_process

MIB = 1024 * 1024


def refusal(path):
    with pytest.raises(ArchiveError) as caught:
        opened(path)
    (line,) = str(caught.value).splitlines()
    return line.removeprefix(f"{path}: ")


def pax(path, **headers):
    """Write a tar archive of one member with these pax headers."""
    made, data = member("a")
    made.pax_headers = {key.replace("__", "."): value for key, value in headers.items()}
    return write(path, (made, data))


def pax_block(records):
    """Return an extended header with these bytes as its records."""
    made = tarfile.TarInfo("x")
    made.type, made.size = tarfile.XHDTYPE, len(records)
    return made.tobuf(tarfile.USTAR_FORMAT) + records.ljust(-(-len(records) // 512) * 512, b"\0")


@pytest.fixture
def little_memory(monkeypatch):
    """The memory that an archive of this size takes, plus 32 MiB."""
    monkeypatch.setattr(_limits, "LEAST_MEMORY", 32 * MIB)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_of_many_parts_takes_the_memory_of_its_parts_alone(tmp_path, kind):
    name = "/".join(["d"] * 4000)
    if kind == "tar":
        write(tmp_path / "a", member(name), member("b"))
    else:
        with zipfile.ZipFile(tmp_path / "a", "w") as archive:
            archive.writestr(name, "")
            archive.writestr("b", "")
    index = opened(tmp_path / "a")
    assert {name for name, _ in index.list(0)} == {b"b", b"d"}
    assert len(index) == 4001


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a/" * 20_000 + "b", "its name is longer than 32768 bytes"),
        ("a/" * 5000 + "b", "its name has more than 4096 parts"),
    ],
)
def test_a_name_that_no_client_could_use_is_left_out(tmp_path, name, reason):
    index = opened(write(tmp_path / "a.tar", member(name), member("b")))
    assert (paths(index), reasons(index)) == ({b"b"}, {reason: 1})


@pytest.mark.parametrize("mtime", ["1e500000", "1e999999999", "9" * 500, "nan", "inf", "-1e99"])
def test_a_time_that_is_none_is_the_epoch(tmp_path, mtime):
    index = opened(pax(tmp_path / "a.tar", mtime=mtime))
    assert index.member(index.lookup(0, b"a")).mtime_ns == 0


def test_a_time_after_2262_is_the_last_that_fits(tmp_path):
    index = opened(pax(tmp_path / "a.tar", mtime="9223372036854775807"))
    assert index.member(index.lookup(0, b"a")).mtime_ns == 2**63 - 1


@pytest.mark.parametrize("seconds", [9_223_372_037, -9_223_372_037, 9_223_372_036_854_775_807])
def test_an_archive_of_any_time_is_indexed_and_kept(tmp_path, seconds):
    archive = write(tmp_path / "a.tar", member("a"))
    subprocess.run(["touch", "-d", f"@{seconds}", archive], check=True, timeout=10)
    index = index_archive(archive)
    assert index.kept
    os.close(index.open())


def test_a_header_of_digits_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(pax_block(b"1" * MIB) + bytes(1024))
    assert "a number of more than 1024 digits" in refusal(tmp_path / "a.tar")


def test_a_header_that_is_larger_than_any_real_one_is_refused(tmp_path):
    records = b"%d comment=" % (8 * MIB) + b"x" * (8 * MIB)
    (tmp_path / "a.tar").write_bytes(pax_block(records) + bytes(1024))
    assert f"an extended header of {len(records)} bytes" in refusal(tmp_path / "a.tar")


def sparse_zip(path, entries, directory_bytes):
    """Write a zip archive whose directory is a hole of the claimed size."""
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries,
                        directory_bytes, 0)  # fmt: skip
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, directory_bytes, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    with open(path, "wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(directory_bytes)
        file.seek(directory_bytes)
        file.write(end64 + locator + end)
    return path


def test_a_zip_that_claims_a_huge_directory_is_refused_unread(tmp_path):
    line = refusal(sparse_zip(tmp_path / "a.zip", 2**20, 3 * 1024 * MIB))
    assert line.startswith("the zip archive's directory cannot be read (3221225472 bytes asked")


def test_more_memory_than_an_honest_archive_needs_is_refused(tmp_path):
    line = refusal(sparse_zip(tmp_path / "a.zip", 2**20, 900 * MIB))
    assert line.startswith("indexing it takes more than 256 MiB of memory")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MIB  # in KiB: less than 1 GiB
    assert paths(opened(write(tmp_path / "b.tar", member("b")))) == {b"b"}


def test_more_time_than_an_honest_archive_needs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_limits, "LEAST_SECONDS", -1)
    monkeypatch.setattr(_limits, "BYTES_PER_SECOND", 2**60)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(60_000):
            archive.addfile(tarfile.TarInfo(f"{number}"))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    with indexing_process():
        line = refusal(tmp_path / "a.tar")
        assert line.startswith("indexing it takes more than -1 s of processor time")
        monkeypatch.undo()
        assert paths(opened(write(tmp_path / "b.tar", member("b")))) == {b"b"}


def test_a_process_that_is_killed_is_one_line_and_the_next_archive_is_indexed(tmp_path):
    one = write(tmp_path / "a.tar", *(member(f"{number}") for number in range(3000)))

    def kill(done, total):
        os.kill(process._process.pid, 9)

    with indexing_process():
        process = _indexer._holder.get().process
        with pytest.raises(ArchiveError, match="the process that indexed it was ended by SIGKILL"):
            opened(one, progress=kill)
        assert len(opened(one)) == 3000


def test_what_progress_raises_ends_the_process(tmp_path):
    one = write(tmp_path / "a.tar", *(member(f"{number}") for number in range(3000)))

    def interrupt(done, total):
        raise KeyboardInterrupt

    with indexing_process():
        process = _indexer._holder.get().process
        with pytest.raises(KeyboardInterrupt):
            opened(one, progress=interrupt)
        assert process._process.returncode is not None
