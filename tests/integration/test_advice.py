"""posix_fadvise(2), readahead(2) and madvise(2) are served and harmless.

docs/semantics.md, "Advice". For a passthrough file the kernel sends READ only for such advice.
"""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import ALL_PATHS, Room, shared_mount, write
from tests.integration.counts import counts, eventually
from tests.support import requires

pytestmark = requires("mounting")

shared = shared_mount(ALL_PATHS, "--cache-timeout", "0")

BYTES = os.urandom(2 << 20)
ADVICE = {
    "fadvise": "os.posix_fadvise(fd, 0, 1 << 20, os.POSIX_FADV_WILLNEED)",
    "readahead": "checked(libc.readahead(fd, ctypes.c_long(0), ctypes.c_size_t(1 << 20)))",
    "madvise": "mmap.mmap(fd, 0, prot=mmap.PROT_READ).madvise(mmap.MADV_WILLNEED)",
}


@pytest.mark.parametrize("advice", ADVICE)
def test_advice_is_taken_and_the_bytes_are_right_afterwards(room: Room, advice: str) -> None:
    write(room.source, "file", BYTES)
    room.same("fd = opened('file')")
    before = counts(room.daemon)
    room.same(ADVICE[advice])
    room.same("[digest(os.pread(fd, 1 << 20, offset)) for offset in (0, 1000, 1 << 20)]")
    room.same("by_mmap('file', [(5, 1 << 20), (1 << 20, 1 << 20)])")
    after = counts(room.daemon)
    if room.path != "passthrough":
        assert after.reads > before.reads


@requires("passthrough")
@pytest.mark.parametrize("advice", ["fadvise", "readahead"])
def test_a_read_that_comes_for_a_file_in_passthrough_is_served(
    mounted, pairs, source, advice: str
) -> None:
    path = write(source, "file", BYTES)
    daemon = mounted("--path", "passthrough", "--cache-timeout", "0")
    pair = pairs(daemon)
    pair.same("fd = opened('file')")
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    assert counts(daemon).reads == 0
    pair.same(ADVICE[advice])
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    assert eventually(lambda: counts(daemon).reads > 0)  # readahead is asynchronous
    after = counts(daemon)
    assert after.reads == sum(after.paths().values())
    assert after.fallbacks["passthrough_read"] == after.reads
    assert not after.control["errors"]
    # Reads do not use the pages that the advice brought into the mount's page cache.
    write(source, "file", BYTES[::-1])
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    os.truncate(path, 10)
    pair.same("digest(os.pread(fd, 1 << 20, 0))")


def test_advice_beyond_the_end_of_the_file_is_no_error(room: Room) -> None:
    write(room.source, "file", BYTES[:100])
    room.same("fd = opened('file')")
    room.same("os.posix_fadvise(fd, 1 << 30, 1 << 20, os.POSIX_FADV_WILLNEED)")
    room.same("os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)")
    room.same("digest(os.pread(fd, 1000, 0))")


def test_advice_to_forget_leads_to_the_same_bytes_again(room: Room) -> None:
    write(room.source, "file", BYTES)
    room.same("fd = opened('file')")
    for _ in range(3):
        room.same("(forget_pages(fd), digest(os.pread(fd, 2 << 20, 0)))")
