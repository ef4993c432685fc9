"""Size and mtime decide whether a file's pages stay cached between opens.

docs/semantics.md, "Cache timeout". If the pages stayed, a second open causes zero READ requests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from tests.integration.conftest import CACHED_PATHS, Room, shared_mount, write
from tests.integration.counts import counts
from tests.support import requires

pytestmark = requires("mounting")

shared = shared_mount(["naive", "upcall", *CACHED_PATHS], "--cache-timeout", "0")

SECOND_NS = 1_000_000_000
BYTES = b"0123456789abcdef" * 20_000


def reads_of_a_second_open(room: Room, between: Callable[[], object]) -> int:
    """READs of a second open after `between`, which must return the right bytes."""
    write(room.source, "file", BYTES)
    start = counts(room.daemon).reads
    room.same("digest(content('file'))")
    between()
    before = counts(room.daemon).reads
    assert before > start
    room.same("digest(content('file'))")
    return counts(room.daemon).reads - before


def test_pages_are_kept_when_size_and_mtime_are_the_same(room: Room) -> None:
    assert reads_of_a_second_open(room, lambda: None) == 0


def test_pages_are_dropped_when_the_mtime_is_another(room: Room) -> None:
    def change() -> None:
        os.utime(write(room.source, "file", BYTES[::-1]), ns=(0, 1_600_000_000_987_654_322))

    assert reads_of_a_second_open(room, change) > 0


def test_pages_are_dropped_when_the_size_is_another(room: Room) -> None:
    assert reads_of_a_second_open(room, lambda: write(room.source, "file", BYTES[5:])) > 0


def test_pages_are_dropped_when_only_the_file_is_another(room: Room) -> None:
    def replace() -> None:
        os.rename(write(room.source, "beside", BYTES[::-1]), f"{room.source}/file")

    assert reads_of_a_second_open(room, replace) > 0


def test_a_file_changed_twice_within_a_tick_of_its_clock_is_not_taken_for_unchanged(
    room: Room,
) -> None:
    # One time for both, as on a filesystem with times in seconds.
    now = (time.time_ns() // SECOND_NS + 1) * SECOND_NS
    for data in (BYTES, BYTES[::-1], BYTES):
        os.utime(write(room.source, "file", data), ns=(now, now))
        room.same("digest(content('file'))")


@pytest.mark.parametrize("path", ["naive", "upcall", *CACHED_PATHS])
def test_an_open_drops_old_pages_while_attributes_are_still_believed(
    mounted, pairs, source, path: str
) -> None:
    file = write(source, "file", BYTES)
    pair = pairs(mounted("--path", path, "--cache-timeout", "1000"))
    pair.same("digest(content('file'))")
    write(source, "file", BYTES[::-1])
    os.utime(file, ns=(0, SECOND_NS))
    pair.same("digest(content('file'))")


@requires("passthrough")
def test_a_file_in_passthrough_is_in_the_page_cache_once(mounted, clients, source) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", "passthrough", "--cache-timeout", "0")
    reads_of_nothing = clients(daemon).value("digest(content('file'))")
    assert reads_of_nothing[0] == len(BYTES)
    assert counts(daemon).reads == 0
    assert counts(daemon).opens == {"passthrough": 1}
