"""Files that change, or lose their names, while a client has them open.

docs/semantics.md, "Cache timeout", "Hard links and replaced files".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

import pytest

from tests.integration.conftest import ALL_PATHS, Room, shared_mount, write
from tests.support import requires

pytestmark = requires("mounting")

shared = shared_mount(ALL_PATHS, "--cache-timeout", "0.1")

BEFORE: Final = b"before" * 30_000
AFTER: Final = b"change" * 30_000
READ: Final = "digest(os.pread(fd, 1 << 20, 0))"


def _overwrite(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(AFTER)


def _append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(AFTER)


def _replace(path: str) -> None:
    write(os.path.dirname(path), "beside", AFTER)
    os.rename(f"{os.path.dirname(path)}/beside", path)


def _swap(make: Callable[[str], None]) -> Callable[[str], None]:
    def change(path: str) -> None:
        os.unlink(path)
        make(path)

    return change


CONTENT: Final[dict[str, Callable[[str], None]]] = {
    "other bytes of the same size": _overwrite,
    "growth": _append,
    "truncation": lambda path: os.truncate(path, 1000),
}
NAME: Final[dict[str, Callable[[str], None]]] = {
    "removal": os.unlink,
    "rename": lambda path: os.rename(path, path + "-new"),
    "rename of the directory": lambda path: os.rename(os.path.dirname(path), path[:-5] + "-new"),
    "replacement": _replace,
    "swap for a fifo": _swap(os.mkfifo),
    "swap for a link": _swap(lambda path: os.symlink("/etc/passwd", path)),
}


@pytest.mark.parametrize("change", CONTENT)
def test_a_file_that_is_open_shows_its_change(room: Room, change: str) -> None:
    path = write(room.source, "file", BEFORE)
    room.same("fd = os.open(p('file'), os.O_RDONLY)")
    room.same(READ)
    CONTENT[change](path)
    room.settle(READ)


@pytest.mark.parametrize("change", NAME)
def test_a_file_that_loses_its_name_is_read_and_described_while_open(
    room: Room, change: str
) -> None:
    os.mkdir(f"{room.source}/dir")
    path = write(room.source, "dir/file", BEFORE)
    room.same("fd = opened('dir/file')")
    NAME[change](path)
    room.same("[digest(os.pread(fd, 100_000, offset)) for offset in (0, 100_000)]")
    if room.path == "naive":
        room.same("FIELDS.remove('ino')")
    room.settle("fields_of(os.fstat(fd))")
    room.same("(forget_pages(fd), digest(os.pread(fd, 1 << 20, 0)))")


@pytest.mark.parametrize("change", ["rename and replacement", "replacement"])
@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_file_replaced_between_lookup_and_open_is_opened_as_what_it_is_now(
    mounted, pairs, source, path: str, change: str
) -> None:
    file = write(source, "file", BEFORE)
    pair = pairs(mounted("--path", path, "--cache-timeout", "1000"))
    old = pair.mount.value("attributes('file')")
    if change != "replacement":
        os.rename(file, file + "-old")
    _replace(file)
    # The kernel still has the old file; an open by its number gets ESTALE.
    pair.mount.value("fd = os.open(p('file'), os.O_RDONLY)")
    assert pair.mount.value("os.pread(fd, 6, 0)") == AFTER[:6]
    assert pair.mount.value("os.fstat(fd).st_ino") != old["ino"]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_a_file_swapped_for_a_special_one_blocks_nobody(
    mounted, clients, pairs, source, kind: int
) -> None:
    path = write(source, "file", BEFORE)
    write(source, "other", AFTER)
    # The client's kernel still has the file, so it asks the daemon to open it.
    daemon = mounted("--cache-timeout", "1000")
    pair = pairs(daemon)
    pair.same("os.lstat(p('file')).st_size")
    _swap(lambda path: os.mknod(path, kind | 0o600))(path)
    pair.same("os.close(os.open(p('file'), os.O_RDONLY | os.O_NONBLOCK))")
    assert clients(daemon).value("content('other')[:6]") == AFTER[:6]
    assert "file" in os.listdir(source)
