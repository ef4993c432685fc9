"""Attributes, links, listings and extended attributes, against the backing directory.

docs/semantics.md, "Operations", "Inode numbers", "Extended attributes".
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

import pytest

from tests.integration.client import Client, Pair
from tests.integration.conftest import command, pair_of, serving, write
from tests.integration.counts import eventually
from tests.support import Daemon, requires

pytestmark = requires("mounting")


def make_tree(source: str) -> None:
    """One entry of each kind."""
    os.mkdir(os.path.join(source, "dir"), 0o2751)
    os.makedirs(os.path.join(source, "deep", "deeper", "deepest"))
    for mode in (0o000, 0o444, 0o644, 0o755, 0o4755, 0o2711, 0o7777):
        os.chmod(write(source, f"mode{mode:o}", b"x" * mode), mode)
    os.chmod(os.path.join(source, "deep"), 0o1777)
    first = write(source, "linked", b"one file, three names")
    os.link(first, os.path.join(source, "again"))
    os.link(first, os.path.join(source, "dir", "elsewhere"))
    for name, target in {
        "relative": "dir/elsewhere",
        "absolute": "/etc/passwd",
        "dangling": "nowhere",
        "up": "../../../..",
        "loop": "loop",
        "long": "a/" * 2000,
    }.items():
        os.symlink(target, os.path.join(source, name))
    os.mkfifo(os.path.join(source, "fifo"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.join(source, "socket"))
    sparse = write(source, "sparse", b"begin")
    os.truncate(sparse, 5 << 30)
    os.utime(sparse, ns=(1, 999_999_999))
    os.utime(os.path.join(source, "mode444"), ns=(-1, -(10**9) - 1))
    os.utime(os.path.join(source, "mode644"), ns=(2**33 * 10**9, 2**33 * 10**9 + 1))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    base = tmp_path_factory.mktemp("metadata")
    source = base / "source"
    source.mkdir()
    make_tree(str(source))
    with contextlib.closing(Client(str(source))) as native:
        # A listing sets the access time if the directory changed since its last access.
        assert eventually(lambda: bool(native.value("tree() == tree()")))
    with serving(base, str(source)) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def pair(daemon: Daemon) -> Iterator[Pair]:
    with pair_of(daemon) as pair:
        yield pair


def test_every_field_of_lstat_is_the_backing_file_s(pair: Pair) -> None:
    fields = pair.same("tree()")
    assert len(fields) > 20


def test_the_time_of_birth_is_the_backing_file_s(pair: Pair) -> None:
    for name in ("", "linked", "dir", "deep/deeper", "relative", "fifo", "missing"):
        pair.same(f"birth('{name}')")


def test_fstat_of_an_open_file_is_the_backing_file_s(pair: Pair) -> None:
    pair.same("fields_of(os.fstat(os.open(p('linked'), os.O_RDONLY)))")


def test_hard_links_are_one_inode_with_one_count(pair: Pair) -> None:
    names = ["linked", "again", "dir/elsewhere"]
    found = pair.mount.value(f"[attributes(name) for name in {names}]")
    assert found[0] == found[1] == found[2]
    assert found[0]["nlink"] == 3


def test_the_naive_path_shows_all_but_the_inode_number(mounted, daemon, pairs) -> None:
    naive = pairs(mounted("--path", "naive", source=daemon.source))
    naive.same("FIELDS.remove('ino')")
    naive.same("tree()")
    assert naive.mount.value("os.path.samefile(p('linked'), p('again'))")


def test_a_link_says_what_it_says_in_the_backing_directory(pair: Pair) -> None:
    links = ["relative", "absolute", "dangling", "up", "loop", "long", "linked", "dir", "missing"]
    for name in links:
        pair.same(f"os.readlink(p('{name}'))")


@pytest.mark.parametrize("name", ["relative", "dangling", "loop", "long", "linked/x", "missing"])
def test_a_path_over_a_link_leads_where_it_does_natively(pair: Pair, name: str) -> None:
    pair.same(f"digest(content('{name}'))")


@pytest.mark.parametrize("name", ["", "dir", "deep", "deep/deeper/deepest"])
def test_a_listing_has_the_same_names_numbers_and_types(pair: Pair, name: str) -> None:
    pair.same(f"entries('{name}')")


def test_the_dot_names_carry_the_numbers_of_the_directories(pair: Pair) -> None:
    pair.same("sorted(entry[:3] for entry in Directory('deep/deeper').rest())")


def test_special_files_are_shown_and_opened_as_natively(pair: Pair) -> None:
    pair.same("stat.S_ISFIFO(os.lstat(p('fifo')).st_mode)")
    pair.same("os.close(os.open(p('fifo'), os.O_RDONLY | os.O_NONBLOCK))")
    pair.same("os.open(p('fifo'), os.O_WRONLY | os.O_NONBLOCK)")
    pair.same("os.open(p('socket'), os.O_RDONLY)")


@requires("root")
def test_statvfs_is_the_backing_filesystem_s_but_for_the_flags(tmpfs, mounted, pairs) -> None:
    pair = pairs(mounted())
    found = pair.same(
        "[getattr(os.statvfs(root), 'f_' + name) for name in"
        " ('bsize', 'frsize', 'blocks', 'bfree', 'bavail', 'files', 'ffree', 'favail', 'namemax')]"
    )
    assert found[2] == (64 << 20) // found[1]
    assert pair.mount.value("os.statvfs(root).f_flag & os.ST_RDONLY")


@requires("xattr")
def test_extended_attributes_are_the_backing_file_s(source, mounted, pairs) -> None:
    path = write(source, "file")
    os.setxattr(path, b"user.zcfuse", b"\0any \xff bytes")
    os.setxattr(path, b"user.empty", b"")
    os.setxattr(path, b"user.long", b"x" * 2000)
    pair = pairs(mounted())
    assert len(pair.same("xattrs('file')")) == 3
    pair.same("os.getxattr(p('file'), b'user.missing')")
    for size in (0, 1, 1999, 2000, 2001):
        pair.same(f"getxattr_into('file', b'user.long', {size})")


@requires("xattr", "root")
def test_trusted_attributes_are_for_root_as_natively(public, mounted, pairs) -> None:
    path = write(f"{public}/source", "file")
    os.setxattr(path, b"user.seen", b"by all")
    os.setxattr(path, b"trusted.seen", b"by root")
    daemon = mounted("--allow-other", source=f"{public}/source", mountpoint=f"{public}/mnt")
    assert len(pairs(daemon).same("xattrs('file')")) == 2
    ordinary = pairs(daemon, uid=65534)
    assert len(ordinary.same("xattrs('file')")) == 1
    ordinary.same("os.getxattr(p('file'), b'trusted.seen')")


@requires("root")
def test_device_nodes_are_shown_and_not_opened(source, mounted, pairs) -> None:
    command("mknod", f"{source}/null", "c", "1", "3")
    pair = pairs(mounted())
    assert stat.S_ISCHR(pair.same("os.lstat(p('null')).st_mode"))
    pair.same("os.lstat(p('null')).st_rdev")
    assert pair.mount.outcome("os.open(p('null'), os.O_RDONLY)") == "EACCES"
