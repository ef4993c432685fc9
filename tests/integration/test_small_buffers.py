"""Upcalls through small socket buffers: INIT negotiates smaller messages, and all arrive."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import write
from tests.integration.counts import counts, eventually
from tests.support import requires

pytestmark = requires("mounting")

SMALL = {"ZCFUSE_FAULTS": "setsockopt:EPERM"}
LOST = [*["255"] * 29, "EIO"]
BYTES = os.urandom(3 << 20)


@pytest.mark.parametrize("env", [{}, SMALL], ids=["large", "small"])
def test_every_byte_comes_by_upcalls(mounted, pairs, source, env) -> None:
    write(source, "file", BYTES)
    daemon = mounted("--path", "upcall", env=env)
    pair = pairs(daemon)
    pair.same(f"by_read('file', [(0, {len(BYTES)}), (77_777, 1_500_000)])")
    pair.same("by_direct('file', [(0, 3 << 20), (4096, 1 << 20)])")
    after = counts(daemon)
    assert after.paths() == {"upcall": after.reads}


def test_smaller_messages_are_negotiated_for_smaller_buffers(mounted, source, mountpoint) -> None:
    pages = []
    for env in ({}, SMALL):
        daemon = mounted("--path", "upcall", env=env)
        pages.append(counts(daemon).datapath["init"]["max_pages"])
        daemon.unmount()
    assert 1 <= pages[1] <= pages[0]
    with open("/proc/sys/net/core/wmem_default") as file:
        assert pages[1] * 4096 < int(file.read())


def test_listings_links_and_attributes_come_whole(mounted, pairs, source) -> None:
    for n in range(3000):
        os.symlink("t" * (n % 4000 + 1), f"{source}/{'n' * 200}-{n}")
    write(source, "file")
    os.setxattr(f"{source}/file", b"user.long", b"x" * 3500)
    pair = pairs(mounted(env=SMALL))
    assert len(pair.same("entries()")) == 3001
    pair.same("[os.readlink(p(name)) for name, _, kind in entries() if kind == 10]")
    pair.same("xattrs('file')")


def test_many_requests_at_once_wait_their_turn(mounted, source) -> None:
    names = [f"file-{n}" for n in range(200)]
    for name in names:
        write(source, name, name.encode() * 5000)
    daemon = mounted("--path", "upcall", env=SMALL)
    code = """
import concurrent.futures, os, sys
def same(name):
    with open(os.path.join(sys.argv[1], name), "rb") as one:
        return one.read() == name.encode() * 5000
with concurrent.futures.ThreadPoolExecutor(40) as pool:
    print(sum(pool.map(same, os.listdir(sys.argv[1]))))
"""
    assert daemon.python(code, daemon.mountpoint).stdout == b"200\n"
    # The last RELEASE may still be on its way.
    assert eventually(lambda: counts(daemon).datapath["upcalls_out"] == 0)
    assert not counts(daemon).control["errors"]


@pytest.mark.parametrize(
    ("fault", "answers"),
    [("send:ENOBUFS:after=12:count=5", ["255"] * 30), ("send:EIO:after=12:count=1", LOST)],
)
def test_a_message_that_cannot_be_sent_waits_or_fails_its_request_alone(
    mounted, clients, fault: str, answers: list[str]
) -> None:
    daemon = mounted("--path", "upcall", "--cache-timeout", "1000", env={"ZCFUSE_FAULTS": fault})
    client = clients(daemon)
    # One request each, which the kernel neither caches nor repeats.
    found = [str(client.outcome("os.statvfs(root).f_namemax")) for _ in range(30)]
    assert sorted(found) == answers
    assert eventually(lambda: counts(daemon).datapath["upcalls_out"] == 0)
