"""Large pieces by the splice path: both counts show zero bytes through user space."""

from __future__ import annotations

import os
import zlib

import pytest

from tests.support import requires
from zcfuse.audit import read_usage

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

MIB = 1 << 20
# Other reads and writes of the process: requests of a few dozen bytes, replies' headers, log lines
# and the test's queries. A copy would be a thousand times as much.
ALLOWANCE = MIB
ISLANDS = [0, 4095, 300 * MIB + 17, 512 * MIB - 3, 800 * MIB + 1, 1200 * MIB]

TREE = """
big = where + "/big"
tree = Dir({
    "slice": Slice(big, 4097, 1 << 30),
    "concat": Concat([Slice(big, 4097, (500 << 20) + 3), Zeros((33 << 20) + 5),
                      Slice(big, 12345, 512 << 20), Bytes(b"end")]),
})
options = MountOptions(path="splice", transport="dev")
"""
# Drop the pages after reading, so that a machine with little memory can run this.
CHECKSUM = """
def checksum(name):
    fd = opened(name)
    crc = offset = 0
    buffer = bytearray(4 << 20)
    import zlib
    while n := os.preadv(fd, [buffer], offset):
        crc = zlib.crc32(memoryview(buffer)[:n], crc)
        offset += n
        os.posix_fadvise(fd, 0, offset, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return offset, crc
"""


@pytest.fixture
def where(tmp_path):
    fd = os.open(tmp_path / "big", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 1300 * MIB)
    for offset in ISLANDS:
        os.pwrite(fd, b"island %d" % offset, offset)
    os.close(fd)
    yield str(tmp_path)
    os.unlink(tmp_path / "big")


def checksum(path, *runs):
    """Size and CRC-32 of runs (offset, size) of a file; offset None: a hole."""
    crc = total = 0
    with open(path, "rb", buffering=0) as file:
        for offset, size in runs:
            for at in range(0, size, 4 * MIB):
                part = min(4 * MIB, size - at)
                data = bytes(part) if offset is None else os.pread(file.fileno(), part, offset + at)
                crc = zlib.crc32(data, crc)
                total += len(data)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return total, crc


def test_a_gibibyte_of_pieces_is_spliced_without_a_copy(shows, where) -> None:
    program, client = shows(TREE, where=where)
    client.value(f"exec({CHECKSUM!r}, globals())")
    big = os.path.join(where, "big")
    concat = [(4097, 500 * MIB + 3), (None, 33 * MIB + 5), (12345, 512 * MIB)]
    for name, runs, end in (("slice", [(4097, 1 << 30)], b""), ("concat", concat, b"end")):
        size, crc = checksum(big, *runs)
        size, crc = size + len(end), zlib.crc32(end, crc)
        before, earlier = read_usage(program.pid), program.statistics()["datapath"]
        assert client.value(f"checksum({name!r})", timeout=120) == (size, crc)
        after, later = read_usage(program.pid), program.statistics()["datapath"]
        spent = after.since(before).io
        assert spent.rchar < ALLOWANCE
        assert spent.wchar < ALLOWANCE
        served = {path: later["paths"][path]["bytes"] for path in later["paths"]}
        counted = later["paths"]["splice"]
        assert (counted["copied_in"], counted["copied_out"]) == (0, 0)
        # The kernel may take a page from the client's cache and read it again.
        again = counted["bytes"] - earlier["paths"]["splice"]["bytes"] - size
        assert 0 <= again < size // 1000
        assert {path for path, number in served.items() if number} == {"splice"}
        assert not [reason for reason in later["fallbacks"] if reason.startswith("splice")]
