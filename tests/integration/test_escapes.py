"""The mount never serves a file outside the source, whatever is swapped and when.

docs/semantics.md, "Symlinks", "Mounts inside the source". The clients follow no link themselves
(openat2 with RESOLVE_NO_SYMLINKS), so only the daemon can deliver a byte from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

import pytest

from tests.integration.conftest import (
    ALL_PATHS,
    kernel_mount,
    shared_mount,
    write,
)
from tests.integration.counts import Counts, counts
from tests.support import find_mount, requires

pytestmark = requires("mounting")

# By `upcall` Python answers for names, by `auto` the data path does.
shared = shared_mount(["naive", "upcall", "auto"], "--cache-timeout", "0")

RENAME_EXCHANGE = 2
AT_FDCWD = -100
LIBC = ctypes.CDLL(None, use_errno=True)

# Everything that a client can learn about a file below a directory that may be swapped. None means
# a refusal.
SPY = """
def spy(name):
    found = []
    for ask in (of_file, of_status, of_attribute, of_listing):
        try:
            found.append(ask(name))
        except OSError:
            pass
    return found

def of_file(name):
    fd = open_without_links(name)
    try:
        return os.pread(fd, 100, 0)
    finally:
        os.close(fd)

def of_status(name):
    fd = open_without_links(name, os.O_PATH)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)

def of_attribute(name):
    fd = open_without_links(name)
    try:
        return os.getxattr(fd, "user.where")
    finally:
        os.close(fd)

def of_listing(name):
    fd = open_without_links(os.path.dirname(name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tuple(sorted(os.listdir(fd)))
    finally:
        os.close(fd)
"""


def opened(found: Counts) -> dict[str, int]:
    """The number of opens in both planes."""
    asked = found.datapath.get("requests") or found.control["upcalls"]
    return {name: n for name, n in asked.items() if name.lower() in ("open", "opendir")}


@contextlib.contextmanager
def swapping(one: str, other: str) -> Iterator[None]:
    """A thread exchanges two names continuously."""
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(0.001):
            LIBC.renameat2(AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def inside_and_outside(source: str, outside: str) -> None:
    """The same name twice: in the source and in a directory outside it."""
    os.mkdir(f"{source}/dir")
    os.mkdir(outside)
    for directory, data in ((f"{source}/dir", b"inside"), (outside, b"the outside")):
        os.setxattr(write(directory, "file", data), "user.where", data)
    write(outside, "secret", b"secret")


@requires("xattr")
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "relative"])
def test_a_directory_swapped_for_a_link_all_the_time_never_leads_outside(
    room, tmp_path, absolute: bool
) -> None:
    outside = str(tmp_path / "outside")
    inside_and_outside(room.source, outside)
    target = outside if absolute else os.path.relpath(outside, room.source)
    os.symlink(target, f"{room.source}/link")
    mount = room.pair.mount
    mount.value(SPY)
    with swapping(f"{room.source}/dir", f"{room.source}/link"):
        found = mount.value("[spy('dir/file') for _ in range(400)]")
    answers = {answer for one in found for answer in one}
    assert answers <= {b"inside", 6, ("file",)}
    # Both states occurred: the real directory, and the link in its place.
    assert answers
    assert [] in found


def test_a_file_swapped_for_a_link_all_the_time_never_leads_outside(room, tmp_path) -> None:
    outside = str(tmp_path / "outside")
    inside_and_outside(room.source, outside)
    os.symlink(f"{outside}/file", f"{room.source}/link")
    mount = room.pair.mount
    mount.value(SPY)
    with swapping(f"{room.source}/dir/file", f"{room.source}/link"):
        found = mount.value("[spy('dir/file') for _ in range(400)]")
    contents = {answer for one in found for answer in one if isinstance(answer, bytes)}
    assert contents == {b"inside"}


@pytest.mark.parametrize("target", ["/etc", "..", "../..", "/proc/self/root", "/proc/self/cwd"])
def test_a_link_out_of_the_source_is_shown_and_not_followed(room, target: str) -> None:
    os.symlink(target, f"{room.source}/link")
    assert room.same("os.readlink(p('link'))") == os.fsencode(target)
    room.same("xattrs('link')")
    before = opened(counts(room.daemon))
    assert room.same("open_without_links('link/passwd')") == "ELOOP"
    assert room.same("open_without_links('link')") == "ELOOP"
    assert opened(counts(room.daemon)) == before


def test_what_a_client_follows_it_sees_with_its_own_eyes(room) -> None:
    os.symlink("/proc/self/stat", f"{room.source}/link")
    pid = room.pair.mount.value("int(content('link').split()[0])")
    assert pid == room.pair.mount.process.pid


@requires("root")
@pytest.mark.parametrize("path", ALL_PATHS)
def test_another_filesystem_inside_the_source_is_shown(mounted, pairs, source, path) -> None:
    os.mkdir(f"{source}/inner")
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/inner"):
        write(source, "file", b"outer" * 1000)
        write(f"{source}/inner", "file", b"inner" * 1000)
        pair = pairs(mounted("--path", path))
        pair.same("[digest(content(name)) for name in ('file', 'inner/file')]")
        pair.same("keep = FIELDS[:]; FIELDS.remove('ino'); FIELDS.remove('atime_ns')")
        pair.same("tree()")
        pair.same("FIELDS = keep")
        numbers = pair.mount.value("[status['ino'] for status in tree().values()]")
        assert len(set(numbers)) == len(numbers)
        if path != "naive":
            assert pair.mount.value("dict(e[:2] for e in entries())[b'inner']") in numbers


@requires("root")
@pytest.mark.parametrize("path", ["naive", "auto"])
def test_the_mount_inside_its_own_source_is_refused_and_nothing_hangs(
    mounted, clients, source, path
) -> None:
    os.mkdir(f"{source}/back")
    write(source, "file", b"bytes")
    daemon = mounted("--path", path, "--cache-timeout", "0")
    client = clients(daemon)
    with kernel_mount("--bind", daemon.mountpoint, f"{source}/back"):
        assert client.outcome("os.lstat(p('back'))") == "ELOOP"
        assert client.outcome("os.listdir(p('back'))") == "ELOOP"
        assert client.outcome("content('back/file')") == "ELOOP"
        client.value("sorted(os.listdir(root))")
        client.value("list(os.walk(root))")
        assert client.value("content('file')") == b"bytes"
    assert client.value("os.listdir(p('back'))") == []


@requires("root")
def test_a_mount_over_an_open_directory_of_the_source_changes_nothing_else(
    mounted, pairs, source
) -> None:
    os.mkdir(f"{source}/dir")
    write(f"{source}/dir", "file", b"below")
    pair = pairs(mounted("--cache-timeout", "0"))
    assert pair.same("content('dir/file')") == b"below"
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/dir"):
        write(f"{source}/dir", "file", b"above")
        assert pair.same("content('dir/file')") == b"above"
    assert pair.same("content('dir/file')") == b"below"


@requires("root")
def test_a_mount_in_another_mount_s_source_is_just_a_directory(
    mounted, clients, source, tmp_path
) -> None:
    write(source, "file", b"twice")
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    second = tmp_path / "second"
    second.mkdir()
    inner = mounted(mountpoint=str(outer / "inner"))
    assert find_mount(inner.mountpoint) is not None
    daemon = mounted(source=str(outer), mountpoint=str(second))
    assert clients(daemon).value("content('inner/file')") == b"twice"
