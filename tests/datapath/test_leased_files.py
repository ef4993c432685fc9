"""Files below a leased directory: opens, the leases that are kept after them, and limits."""

import errno
import os
import resource
import struct

import pytest

from tests.datapath.kernel import (
    FLUSH,
    KEEP_CACHE,
    LSEEK,
    OPEN,
    OPEN_OUT,
    READ,
    ROOT,
    settle,
)
from tests.support import eventually

OWN = 1 << 62


def test_a_file_is_opened_read_and_released(leased):
    fake = leased()
    node = fake.walk(b"dir/inner").nodeid
    handle, _ = fake.open(node)
    assert fake.read(node, 6, 100).body == b"bytes"
    assert fake.request(FLUSH, node, struct.pack("=QIIQ", handle, 0, 0, 0)).error == 0
    seek = fake.request(LSEEK, node, struct.pack("=QQII", handle, 0, os.SEEK_HOLE, 0))
    assert struct.unpack("=Q", seek.body) == (len(b"inner bytes"),)
    fake.release(node, handle)
    assert fake.statistics().upcalls == {}
    assert fake.statistics().directories.open_files == 0


def test_the_opens_of_a_node_share_one_lease_that_is_kept_for_a_while(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    first, _ = fake.open(node)
    second, _ = fake.open(node)
    fake.release(node, first)
    fake.release(node, second)
    fake.open(node)
    found = fake.statistics()
    assert (found.opens, found.directories.reopened) == ({"cached": 1}, 2)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_an_open_for_writing_is_refused(leased, flags):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    assert fake.request(OPEN, node, struct.pack("=II", flags, 0)).error == errno.EROFS


def test_the_kernel_keeps_its_pages_only_of_a_file_that_did_not_change(leased, tree):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    settle()

    def reopened() -> int:
        handle, flags = fake.open(node)
        fake.release(node, handle)
        return flags & KEEP_CACHE

    assert [reopened(), reopened()] == [0, KEEP_CACHE]
    (tree / "file").write_bytes(b"other byte")
    # A young mtime proves nothing.
    assert [reopened(), reopened()] == [0, 0]
    settle()
    assert [reopened(), reopened()] == [0, KEEP_CACHE]


def test_a_read_of_a_kept_lease_after_the_release_still_goes_up(leased):
    fake = leased()
    fake.ask(READ, OWN | 12345, bytes(40))


def test_a_file_kept_open_is_let_go_of_soon_after_it_was_deleted(leased, tree):
    fake = leased()
    nodes = [fake.walk(name).nodeid for name in (b"file", b"dir/inner")]
    for node in nodes:
        fake.release(node, fake.open(node)[0])
    os.unlink(tree / "dir/inner")
    # The other one lasts longer.
    assert eventually(lambda: fake.statistics().directories.kept_files == 1)


@pytest.fixture
def few_descriptors():
    """A limit that keeps 50 files open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    yield 50
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_files_kept_open_are_bounded_and_the_longest_unused_is_let_go_of(
    few_descriptors, leased, tree
):
    for n in range(few_descriptors + 10):
        (tree / f"n{n}").write_bytes(b"%d" % n)
    fake = leased()
    nodes = [fake.look(ROOT, b"n%d" % n).nodeid for n in range(few_descriptors + 10)]
    for node in nodes:
        fake.release(node, fake.open(node)[0])
    assert fake.statistics().directories.kept_files == few_descriptors
    for node, found in ((nodes[0], 0), (nodes[-1], 1)):
        before = fake.statistics().directories.reopened
        fake.open(node)
        assert fake.statistics().directories.reopened == before + found


def test_a_user_with_too_many_open_files_leaves_descriptors_to_root(leased, tree):
    (tree / "many").mkdir()
    for number in range(100):
        (tree / "many" / f"{number}").write_bytes(b"x")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, limits[1]))
    body = struct.pack("=II", os.O_RDONLY, 0)
    try:
        fake = leased()
        nodes = [fake.walk(b"many/%d" % number).nodeid for number in range(100)]
        replies = [fake.request(OPEN, node, body, uid=1000) for node in nodes]
        errors = [reply.errorname for reply in replies]
        opened = errors.index("EMFILE")
        assert errors == ["OK"] * opened + ["EMFILE"] * (100 - opened)
        assert 0 < opened < 80
        assert {"files_refused", "reserve_refused"} & set(fake.statistics().fallbacks)
        # A file that is open costs nothing more.
        again = fake.request(OPEN, nodes[0], body, uid=1000)
        assert again.errorname == "OK"
        last = nodes[-4:]
        by_root = [fake.open(node)[0] for node in last]
        assert os.close(os.open("/dev/null", os.O_RDONLY)) is None
        handles = [OPEN_OUT.unpack(reply.body)[0] for reply in (*replies[:opened], again)]
        closed = (*nodes[:opened], nodes[0], *last)
        for node, handle in zip(closed, (*handles, *by_root), strict=True):
            fake.release(node, handle)
        assert fake.request(OPEN, nodes[-1], body, uid=1000).errorname == "OK"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
