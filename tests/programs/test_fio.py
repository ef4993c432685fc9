"""fio writes to the backing tree and verifies through the mount, by each method of reading."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

import pytest

from tests.programs.conftest import ServedToUser
from tests.programs.records import Record, version
from tests.programs.served import FAST, Served, served_mount
from tests.support import requires
from zcfuse.audit import cachestat

pytestmark = requires("mounting", "fio")

SIZE: Final = 8 << 20
BLOCK: Final = 64 << 10
COMMON: Final = [
    *("fio", "--name=verify", f"--size={SIZE}", f"--bs={BLOCK}", "--verify=crc32c"),
    *("--verify_state_save=0", "--verify_fatal=1", "--randrepeat=1", "--output-format=json"),
]
ENGINES: Final = {
    "psync": ["--ioengine=psync"],
    "mmap": ["--ioengine=mmap"],
    "libaio, O_DIRECT": ["--ioengine=libaio", "--direct=1", "--iodepth=8"],
    "io_uring": ["--ioengine=io_uring", "--iodepth=8"],
    "io_uring, O_DIRECT": ["--ioengine=io_uring", "--direct=1", "--iodepth=8"],
}
PARAMETERS: Final = [
    pytest.param(name, marks=requires("io_uring calls") if "io_uring" in name else ())
    for name in ENGINES
]


def fill(source: str) -> None:
    """Let fio write blocks with checksums, and then change one byte of one file."""
    for name in ("sound", "damaged"):
        writing = ["--rw=write", "--do_verify=0", f"--filename={source}/{name}"]
        subprocess.run([*COMMON, *writing], check=True, timeout=60, capture_output=True)
    fd = os.open(f"{source}/damaged", os.O_RDWR)
    try:
        byte = os.pread(fd, 1, SIZE - BLOCK // 2)
        os.pwrite(fd, bytes([byte[0] ^ 1]), SIZE - BLOCK // 2)
    finally:
        os.close(fd)


served = served_mount(fill, FAST)


def verify(
    served: Served, name: str, engine: str, *options: str
) -> subprocess.CompletedProcess[bytes]:
    reading = ["--rw=randread", "--readonly", "--filename={}/" + name, *ENGINES[engine]]
    return served.run(*COMMON, *reading, *options, check=False)


def cached_bytes(path: str, *, evict: bool = False) -> int:
    """Bytes of a backing file in the page cache, optionally after eviction."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if evict:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return cachestat(fd).cached_bytes
    finally:
        os.close(fd)


def compare(served: Served, record: Record, engine: str) -> None:
    with served.proof(delivered=SIZE) as proof:
        result = verify(served, "sound", engine)
    assert result.returncode == 0, result.stderr
    (job,) = json.loads(result.stdout)["jobs"]
    assert job["read"]["io_bytes"] == SIZE
    assert job["error"] == 0
    assert proof.numbers()["asked_of_python"] == 0
    record(f"fio, {engine}", version("fio", "--version"), "crc32c of every block", proof)


@pytest.mark.parametrize("engine", PARAMETERS)
def test_fio_verifies_every_block_through_the_mount(
    served: Served, record: Record, engine: str
) -> None:
    compare(served, record, engine)


@requires("kernel 6.5", "page cache eviction")
def test_direct_reads_of_a_file_in_passthrough_leave_the_page_cache_alone(
    served: Served,
) -> None:
    backing = f"{served.source}/sound"
    assert cached_bytes(backing, evict=True) == 0
    assert verify(served, "sound", "libaio, O_DIRECT").returncode == 0
    # By splice the daemon reads ahead through the page cache, whatever the client's flags.
    assert (cached_bytes(backing) == 0) == (served.path == "passthrough")


@requires("ordinary user")
def test_fio_verifies_every_block_for_an_ordinary_user(
    served_to_user: ServedToUser, record: Record
) -> None:
    served = served_to_user(fill)
    for engine in ("psync", "mmap", "libaio, O_DIRECT"):
        compare(served, record, engine)


def test_fio_notices_a_byte_that_was_changed(served: Served) -> None:
    result = verify(served, "damaged", "psync")
    assert result.returncode != 0
    assert b"verify" in result.stderr
