"""Changes of the backing tree become visible after the cache timeout.

docs/semantics.md, "Cache timeout", "Hard links and replaced files". First a client looks at
everything, so that the kernel caches all it can. Then the test makes a change, and the mount must
show what the backing directory shows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

import pytest

from tests.integration.conftest import PASSTHROUGH, Room, shared_mount, write
from tests.integration.counts import counts, eventually
from tests.support import requires

pytestmark = requires("mounting")

# Short, to keep the wait short; not 0, which would disable the cache.
shared = shared_mount(["naive", "splice", PASSTHROUGH], "--cache-timeout", "0.1")

ATTEMPTS: Final = 5
BEFORE: Final = b"before" * 30_000
AFTER: Final = b"change" * 30_000

# Everything that a client can see of a tree, except access times; it opens no special files.
SNAPSHOT: Final = """
def look(path):
    status = os.lstat(p(path))
    fields = fields_of(status)
    if stat.S_ISREG(status.st_mode):
        return fields, digest(content(path))
    return fields, os.readlink(p(path)) if stat.S_ISLNK(status.st_mode) else b""

def try_to_look(path):
    try:
        return look(path)
    except OSError as error:
        return error.strerror

def snapshot():
    paths = [os.path.join(where, name)[len(root) + 1:]
             for where, directories, files in os.walk(root) for name in directories + files]
    return {path: try_to_look(path) for path in sorted({*paths, b"file", b"new", b"dir/inner"})}
"""


def _write(name: str, data: bytes) -> Callable[[str], None]:
    def change(source: str) -> None:
        with open(f"{source}/{name}", "r+b") as file:
            file.write(data)

    return change


def _append(source: str) -> None:
    with open(f"{source}/file", "ab") as file:
        file.write(AFTER)


def _replace(source: str) -> None:
    with open(f"{source}/beside", "wb") as file:
        file.write(AFTER)
    os.rename(f"{source}/beside", f"{source}/file")


def _make_anew(source: str) -> None:
    os.unlink(f"{source}/file")
    with open(f"{source}/file", "wb") as file:
        file.write(AFTER)


def _exchange(source: str) -> None:
    os.rename(f"{source}/file", f"{source}/aside")
    os.rename(f"{source}/dir/inner", f"{source}/file")
    os.rename(f"{source}/aside", f"{source}/dir/inner")


def _swap_directory(source: str) -> None:
    os.rename(f"{source}/dir", f"{source}/other")
    os.symlink("other", f"{source}/dir")


def _swap_for(make: Callable[[str], None]) -> Callable[[str], None]:
    def change(source: str) -> None:
        os.unlink(f"{source}/file")
        make(f"{source}/file")

    return change


def _bind(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


CHANGES: Final[dict[str, Callable[[str], None]]] = {
    "other bytes of the same size": _write("file", AFTER),
    "one other byte": _write("dir/inner", b"X"),
    "growth": _append,
    "growth by a hole": lambda source: os.truncate(f"{source}/file", 10 << 20),
    "truncation": lambda source: os.truncate(f"{source}/file", 1000),
    "truncation to nothing": lambda source: os.truncate(f"{source}/file", 0),
    "rename": lambda source: os.rename(f"{source}/file", f"{source}/new"),
    "rename of a directory": lambda source: os.rename(f"{source}/dir", f"{source}/new"),
    "exchange of two names": _exchange,
    "removal": lambda source: os.unlink(f"{source}/file"),
    "a new file": lambda source: write(source, "new", AFTER) and None,
    "a new link": lambda source: os.link(f"{source}/file", f"{source}/new"),
    "replacement by another file": _replace,
    "removal and a new file of the name": _make_anew,
    "mode": lambda source: os.chmod(f"{source}/file", 0o600),
    "time": lambda source: os.utime(f"{source}/file", ns=(1, 1)),
    "directory swapped for a link": _swap_directory,
    "file swapped for a fifo": _swap_for(os.mkfifo),
    "file swapped for a link": _swap_for(lambda path: os.symlink("dir/inner", path)),
    "file swapped for a socket": _swap_for(_bind),
    "file swapped for a directory": _swap_for(os.mkdir),
}


@pytest.fixture
def watched(room: Room) -> Room:
    """A directory whose existing and missing names the client has looked up."""
    os.mkdir(f"{room.source}/dir")
    write(room.source, "file", BEFORE)
    write(room.source, "dir/inner", b"inner")
    room.same(SNAPSHOT)
    room.same("FIELDS.remove('atime_ns')")
    if room.path == "naive":
        room.same("FIELDS.remove('ino')")
    room.same("snapshot()")
    return room


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen_after_the_cache_timeout(watched: Room, change: str) -> None:
    CHANGES[change](watched.source)
    watched.settle("snapshot()")


def kept_open(room: Room) -> int:
    found = counts(room.daemon).datapath.get("directories", {})
    return int(found.get("kept_files", 0)) + int(found.get("open_files", 0))


def test_a_reused_inode_number_is_another_file(watched: Room) -> None:
    path = f"{watched.source}/file"
    for _ in range(ATTEMPTS):
        watched.settle("look('file')")
        number = os.stat(path).st_ino
        os.unlink(path)
        # An open file keeps its number.
        assert eventually(lambda: kept_open(watched) == 0)
        write(watched.source, "file", AFTER)
        # Other processes use the filesystem too, and some filesystems never reuse numbers.
        if os.stat(path).st_ino == number:
            break
    watched.settle("look('file')")


def test_nothing_is_asked_again_within_the_cache_timeout(mounted, pairs, source) -> None:
    write(source, "file", BEFORE)
    pair = pairs(mounted("--cache-timeout", "1000"))
    old = pair.same("attributes('file')")
    os.chmod(f"{source}/file", 0o600)
    assert pair.mount.value("attributes('file')") == old
