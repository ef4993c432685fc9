"""Holes, and offsets that do not fit into 32 bits.

docs/semantics.md, "Holes".
"""

from __future__ import annotations

import os
import random
from typing import Final

import pytest

from tests.integration.conftest import ALL_PATHS, Room, shared_mount, write
from tests.integration.counts import counts
from tests.support import requires

pytestmark = requires("mounting")

shared = shared_mount(ALL_PATHS, "--lock-budget", "4M")

# On both sides of the limits of unsigned and signed 32 bits.
ISLANDS: Final = [0, (1 << 31) - 2000, (1 << 32) - 2000, (1 << 32) + (1 << 20), 5 << 30]
LEAPS: Final = [n << 36 for n in range(16)]


def islands(source: str, offsets: list[int], size: int) -> str:
    """A sparse file with some bytes at each of the offsets."""
    path = write(source, "sparse")
    with open(path, "r+b") as file:
        os.truncate(path, size)
        for offset in offsets:
            file.seek(offset)
            file.write(random.Random(offset).randbytes(4000))
    return path


@pytest.mark.parametrize("way", ["by_read", "by_mmap", "by_sendfile", "by_direct"])
def test_bytes_beyond_four_gigabytes_are_the_right_ones(room: Room, way: str) -> None:
    islands(room.source, ISLANDS, 6 << 30)
    runs = [(offset & ~4095, 1 << 16) for offset in ISLANDS] + [((6 << 30) - 4096, 8192)]
    room.same(f"{way}('sparse', {runs})")


def test_holes_read_as_zeros_and_take_no_blocks(room: Room) -> None:
    islands(room.source, [1 << 20], 4 << 20)
    room.same("digest(content('sparse'))")
    assert room.same("os.stat(p('sparse')).st_blocks") * 512 < 1 << 20


def test_data_and_holes_are_where_they_are_natively(room: Room) -> None:
    islands(room.source, ISLANDS, 6 << 30)
    if room.path in ("naive", "upcall"):
        # Without a lease the whole file counts as data, which POSIX allows.
        assert room.pair.mount.value("extents('sparse')") == [(0, 6 << 30)]
    else:
        assert len(room.same("extents('sparse')")) == len(ISLANDS)


@pytest.mark.parametrize("whence", ["SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE"])
def test_seeking_to_the_edges_gives_the_same_offset_or_errno(room: Room, whence: str) -> None:
    write(room.source, "file", b"x" * 5000)
    room.same("fd = os.open(p('file'), os.O_RDONLY)")
    for offset in (-1, 0, 1, 4999, 5000, 5001, 1 << 40):
        room.same(f"os.lseek(fd, {offset}, os.{whence})")


def test_a_sparse_file_of_a_terabyte_is_mapped_and_read_anywhere(room: Room) -> None:
    islands(room.source, LEAPS, 1 << 40)
    before = counts(room.daemon)
    runs = [(offset + lead, 9000) for offset in LEAPS for lead in (0, 4000)]
    room.same(f"by_mmap('sparse', {runs})")
    room.same(f"by_read('sparse', {[*runs, ((1 << 40) - 100, 200)]})")
    if room.path == "mmap":
        after = counts(room.daemon)
        assert after.served("mmap") > before.served("mmap")
        assert after.datapath["windows"]["locked"] <= 4 << 20
