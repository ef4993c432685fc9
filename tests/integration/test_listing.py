"""Directories: large ones, and ones that change during a listing.

docs/semantics.md, "Directories that change".
"""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import Room, shared_mount, write
from tests.integration.counts import counts
from tests.support import requires

pytestmark = requires("mounting")

# By `upcall` Python lists a snapshot; by `splice` the data path streams the backing directory.
shared = shared_mount(["naive", "upcall", "splice"], "--cache-timeout", "0")

# More than any reply holds.
MANY = 20_000


def fill(directory: str, count: int, name: str = "entry") -> list[str]:
    """Make more files than fit into one reply."""
    names = [f"{name}-{n:05}" for n in range(count)]
    for one in names:
        os.close(os.open(os.path.join(directory, one), os.O_CREAT | os.O_WRONLY))
    return names


def asked(room: Room, name: str) -> int:
    """Requests of an operation so far, in both planes."""
    found = counts(room.daemon)
    return found.request(name) if found.datapath else found.control["upcalls"].get(name.lower(), 0)


def test_a_large_directory_is_listed_completely_and_once(room: Room) -> None:
    many = len(fill(room.source, MANY if room.path != "naive" else MANY // 10))
    before = asked(room, "OPENDIR")
    found = room.pair.mount.value("[entry[0] for entry in Directory().rest()]")
    assert len(found) == len(set(found)) == many + 2
    assert asked(room, "OPENDIR") == before + 1
    room.same("entries()" if room.path != "naive" else "sorted(os.listdir(root))")


@pytest.mark.parametrize("size", [300, 4096, 1 << 20])
def test_a_buffer_of_any_size_gives_the_same_entries(room: Room, size: int) -> None:
    fill(room.source, 2000, "x" * 200)
    entry = "entry[:3]" if room.path != "naive" else "(entry[0], entry[2])"
    room.same(f"sorted({entry} for entry in Directory('', {size}).rest())")


def test_a_directory_that_changes_meanwhile_shows_each_entry_once(room: Room) -> None:
    stay = fill(room.source, 3000, "stays")
    go = fill(room.source, 1000, "goes")
    renamed = fill(room.source, 1000, "renamed")
    mount = room.pair.mount
    mount.value("directory = Directory('', 4096)")
    found = [mount.value("directory.some()")]
    for n, (gone, old) in enumerate(zip(go, renamed, strict=True)):
        os.unlink(f"{room.source}/{gone}")
        os.rename(f"{room.source}/{old}", f"{room.source}/moved-{n}")
        write(room.source, f"new-{n}")
        if n % 100 == 0:
            found.append(mount.value("directory.some()"))
    found.append(mount.value("directory.rest()"))
    names = [os.fsdecode(entry[0]) for some in found for entry in some]
    assert len(names) == len(set(names))
    assert {".", "..", *stay} <= set(names)


def test_a_directory_is_read_once_a_pass_and_not_for_each_buffer(room: Room) -> None:
    fill(room.source, 2000)
    request = "READDIRPLUS" if room.path != "naive" else "READDIR"
    before = asked(room, request)
    room.pair.mount.value("directory = Directory('', 4096)")
    first = room.pair.mount.value("directory.some()")
    # A second pass would find these, but not the first.
    fill(room.source, 2000, "late")
    names = [entry[0] for entry in first + room.pair.mount.value("directory.rest()")]
    assert len(names) == len(set(names))
    early = [name for name in names if not name.startswith(b"late")]
    assert len(early) == 2000 + 2
    if room.path != "splice":
        assert names == early
    assert asked(room, request) > before + 10


def test_rewinding_reads_the_directory_anew(room: Room) -> None:
    fill(room.source, 10)
    room.same("directory = Directory()")
    room.same("len(directory.rest())")
    os.unlink(f"{room.source}/entry-00003")
    write(room.source, "new")
    room.same("directory.seek(0)")
    names = room.same("sorted(entry[0] for entry in directory.rest())")
    assert b"new" in names
    assert b"entry-00003" not in names


def test_the_offset_of_an_entry_leads_back_behind_it(room: Room) -> None:
    fill(room.source, 1000)
    mount = room.pair.mount
    mount.value("directory = Directory('', 4096)")
    entries = mount.value("directory.rest()")
    for index in (0, 1, 500, 998, len(entries) - 2):
        mount.value(f"directory.seek({entries[index][3]})")
        assert mount.value("directory.rest()") == entries[index + 1 :]


def test_two_readers_of_one_directory_do_not_disturb_each_other(room: Room) -> None:
    fill(room.source, 2000)
    room.pair.mount.value("first, second = Directory('', 4096), Directory('', 4096)")
    room.pair.mount.value("some = first.some()")
    whole = room.pair.mount.value("second.rest()")
    assert room.pair.mount.value("some + first.rest()") == whole


def test_a_directory_that_is_removed_while_open_ends_without_an_error(room: Room) -> None:
    os.mkdir(f"{room.source}/dir")
    room.same("directory = Directory('dir')")
    os.rmdir(f"{room.source}/dir")
    listed = room.pair.mount.outcome("[entry[0] for entry in directory.rest()]")
    assert listed in ("ENOENT", "ESTALE", [])
    assert room.same("os.listdir(p('dir'))") == "ENOENT"


def test_an_empty_directory_has_the_dot_names_alone(room: Room) -> None:
    os.mkdir(f"{room.source}/dir")
    assert room.same("sorted(entry[0] for entry in Directory('dir').rest())") == [b".", b".."]
