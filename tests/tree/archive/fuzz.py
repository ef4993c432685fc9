"""A mutation fuzzer for archives: ``python -m tests.tree.archive.fuzz [SECONDS [SEED]]``.

Each mutant is parsed under a limit of memory and of time. It must become an index, whose members
all lie within the archive, or one line. Anything more is a finding: the mutant is kept in the
working directory as ``fuzz-finding-N``, and the exit status is 1.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from tests.tree.archive.support import directory, hard_link, make_holes, member, nodes, symlink
from zcfuse.tree.archive import ArchiveError, Kind, unpack
from zcfuse.tree.archive._identity import identify
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._limits import LEAST_MEMORY
from zcfuse.tree.archive._parse import parse
from zcfuse.tree.archive._place import ArchivePlace

# For one mutant of a few KiB; a machine under load is slow.
SECONDS_EACH: Final = 20
LARGEST: Final = 256 * 1024
UNPACKED_BYTES: Final = 1 << 20
BLOCK: Final = 512
_CHECKSUM: Final = slice(148, 156)
_NUMBERS: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_WORDS: Final = (
    b"9" * 30, b"-1", b"1e999999999", b"nan", b"../", b"/", b"\0", b"\n", b"=", b"GNU.sparse.map=",
    b"GNU.sparse.size=", b"GNU.sparse.major=1\n", b"size=", b"mtime=", b"path=", b"linkpath=",
    b"hdrcharset=BINARY\n", b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"ustar\0",
)  # fmt: skip


class TooSlowError(BaseException):
    """A mutant took longer than its time."""


def corpus(work: Path) -> list[bytes]:
    """Return archives of every kind that the parsers know."""
    members = [
        directory("d"), member("d/f", data=b"x" * 700), member("long/" * 30 + "f", data=b"y"),
        symlink("s", "d/f"), hard_link("h", "d/f"), member("\udcff", data=b"z"),
    ]  # fmt: skip
    odd, data = member("pax", data=b"1234")
    odd.pax_headers = {
        "mtime": "1.5", "path": "p" * 300, "uid": "7", "SCHILY.xattr.user.a": "b", "comment": "c",
    }  # fmt: skip
    found = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind, errors="surrogateescape") as archive:
            for header, content in [
                *members,
                *([(odd, data)] if kind == tarfile.PAX_FORMAT else []),
            ]:
                archive.addfile(header, io.BytesIO(content))
        found.append(file.getvalue())
    found += _sparse_tars(work)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as made:
            made.writestr("d/", b"")
            made.writestr("d/f", b"text " * 200)
            link = zipfile.ZipInfo("s")
            link.external_attr = 0o120777 << 16
            made.writestr(link, b"d/f")
            with made.open(zipfile.ZipInfo("big"), "w", force_zip64=True) as big:
                big.write(b"64")
            made.comment = b"comment"
        found.append(file.getvalue())
    return found


def _sparse_tars(work: Path) -> list[bytes]:
    make_holes(work / "holes", [1, 3], 300_000)
    found = []
    for options in (["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in
                                        ("0.0", "0.1", "1.0"))):  # fmt: skip
        command = ["tar", "-cSf", "-", *options, "holes"]
        done = subprocess.run(command, cwd=work, capture_output=True, check=True, timeout=30)
        found.append(done.stdout)
    return found


def mutant(choose: random.Random, seeds: list[bytes]) -> bytes:
    """Return one of the seeds with a few changes."""
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.choice((1, 1, 2, 3, 8))):
        _change(choose, data, seeds)
    del data[LARGEST:]
    if choose.random() < 0.8:
        _sum_again(data)
    return bytes(data)


def _change(choose: random.Random, data: bytearray, seeds: list[bytes]) -> None:
    # Most mutations belong into headers: the front, and the end of a zip archive.
    span = choose.choice((BLOCK, 4 * BLOCK, len(data) or 1))
    at = choose.randrange(min(span, len(data)) or 1)
    at = len(data) - 1 - at if choose.random() < 0.3 else at
    at = max(at, 0)
    kind = choose.randrange(7)
    if kind == 0 and data:
        data[at] ^= 1 << choose.randrange(8)
    elif kind == 1 and data:
        data[at] = choose.randrange(256)
    elif kind == 2:
        size = choose.choice((2, 4, 8))
        value = choose.choice(_NUMBERS) & (1 << 8 * size) - 1
        data[at : at + size] = value.to_bytes(size, choose.choice(("little", "big")))
    elif kind == 3:
        word = choose.choice(_WORDS)
        data[at : at + choose.choice((0, len(word)))] = word
    elif kind == 4:
        del data[at : at + choose.choice((1, 12, BLOCK, 3 * BLOCK))]
    elif kind == 5:
        length = choose.choice((BLOCK, 2 * BLOCK, 5 * BLOCK))
        start = at // BLOCK * BLOCK
        data[start:start] = data[start : start + length]
    else:
        other = choose.choice(seeds)
        start = choose.randrange(len(other)) // BLOCK * BLOCK
        place = at // BLOCK * BLOCK
        data[place:] = other[start:]


def _sum_again(data: bytearray) -> None:
    """Make the checksums of tar headers right again, or no mutant would get past them."""
    for start in range(0, len(data) - BLOCK + 1, BLOCK):
        header = data[start : start + BLOCK]
        if header[257:262] == b"ustar":
            header[_CHECKSUM] = b" " * 8
            header[_CHECKSUM] = b"%06o\0 " % sum(header)
            data[start : start + BLOCK] = header


def examine(data: bytes, path: Path, *, salvage: bool) -> None:
    """Index a mutant and look at each member; raise what is a finding."""
    path.write_bytes(data)
    place = ArchivePlace(path)
    fd = place.open()
    try:
        identity = identify(place.path, fd)
        found, _ = parse(place.path, fd, identity.mtime_ns, lambda done, total: None,
                         salvage=salvage)  # fmt: skip
        index = ArchiveIndex.of(place, identity, found)
        for _, node in nodes(index):
            _examine_member(index, node, fd, len(data))
    except ArchiveError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"more than a line: {error}") from error
    finally:
        os.close(fd)


def _examine_member(index: ArchiveIndex, node: int, fd: int, size: int) -> None:
    found = index.member(node)
    if found.kind in (Kind.FILE, Kind.SPARSE):
        runs = list(index.runs(node))
        assert sum(run.length for run in runs) == found.size, "the runs are not the file"
        for run in runs:
            assert run.length >= 0, "a run is negative"
            assert run.offset is None or 0 <= run.offset <= size - run.length, "beyond the archive"
    elif found.kind in (Kind.DEFLATED, Kind.BZIP2, Kind.LZMA) and found.size <= UNPACKED_BYTES:
        with contextlib.suppress(OSError):
            unpack(fd, found, lambda _: None)
    elif found.kind == Kind.SYMLINK:
        assert b"\0" not in index.readlink(node)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit memory to that of the indexing process, and give SIGALRM a meaning."""

    def too_slow(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"more than {SECONDS_EACH} s")

    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + LEAST_MEMORY
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, too_slow)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.signal(signal.SIGALRM, handler)


def run(seed: int, more: Callable[[int], bool]) -> tuple[int, list[bytes]]:
    """Examine mutants while `more` says so of their count; return the count and the findings."""
    choose = random.Random(seed)
    findings: list[bytes] = []
    done = 0
    with tempfile.TemporaryDirectory() as work, limited():
        seeds = corpus(Path(work))
        while more(done):
            data = mutant(choose, seeds)
            signal.alarm(SECONDS_EACH)
            try:
                examine(data, Path(work) / "mutant", salvage=choose.random() < 0.3)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                traceback.print_exc()
                findings.append(data)
            finally:
                signal.alarm(0)
            done += 1
    return done, findings


def main() -> int:
    """Fuzz for a number of seconds; return the exit status."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else struct.unpack("I", os.urandom(4))[0]
    print(f"seed {seed}, for {seconds:g} s", flush=True)
    end = time.monotonic() + seconds
    done, findings = run(seed, lambda _: time.monotonic() < end)
    for number, data in enumerate(findings):
        Path(f"fuzz-finding-{number}").write_bytes(data)
    print(f"{done} mutants, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
