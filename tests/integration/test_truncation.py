"""Files that shrink or grow while they are read or mapped.

docs/semantics.md, "Truncation and growth": a short read as natively, never an error, and no harm to
the daemon, which may map the same file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.integration.conftest import ALL_PATHS, Room, shared_mount, write
from tests.integration.counts import counts, eventually
from tests.support import requires

pytestmark = requires("mounting")

# So long that the kernel keeps the old size until a reply corrects it.
shared = shared_mount(ALL_PATHS, "--cache-timeout", "1000")

BYTES = os.urandom(4 << 20)

TOUCH_BEYOND = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
assert mapping[0] is not None
os.truncate(sys.argv[2], 5000)
print(mapping[4999], flush=True)
mapping[60 << 20]  # no readahead has got there yet
"""


def test_a_read_over_the_new_end_is_short_and_no_error(room: Room) -> None:
    file = write(room.source, "file", BYTES)
    room.same("fd = opened('file')")
    room.same("digest(os.pread(fd, 100, 0))")
    os.truncate(file, 1_000_000)
    for offset in (900_000, 999_999, 1_000_000, 3 << 20):
        read = f"(forget_pages(fd), digest(os.pread(fd, 200_000, {offset})))"
        # If two READs of one readahead are answered in reverse order, the kernel keeps the wrong
        # end, with zeros up to it, until the next GETATTR.
        assert eventually(lambda read=read: not room.pair.differ(read)), read
    room.same("digest(os.pread(fd, 100, 0))")


def test_a_direct_read_over_the_new_end_is_short(room: Room) -> None:
    file = write(room.source, "file", BYTES)
    room.same("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    room.same("_direct(fd, 0, 1 << 20)")
    os.truncate(file, 1_000_000)
    room.same("[_direct(fd, offset, 1 << 18) for offset in (786_432, 983_040, 1_048_576)]")


def test_a_file_truncated_again_and_again_never_gives_an_error(room: Room) -> None:
    file = write(room.source, "file", BYTES)
    mount = room.pair.mount
    mount.value("fd, direct = opened('file'), opened('file', os.O_RDONLY | os.O_DIRECT)")
    mount.begin(
        "[_direct(direct, n % 8 << 17, 1 << 18) for n in range(400)] + [forget_pages(fd)]"
        " + [digest(os.pread(fd, 1 << 18, n % 8 << 17)) for n in range(200)]"
    )
    for n in range(300):
        os.truncate(file, (n * 7919_7919) % len(BYTES))
    kind, answers = mount.finish()
    assert kind == "value"
    assert not [answer for answer in answers if isinstance(answer, str)]


def test_a_mapping_touched_beyond_the_new_end_is_sigbus_in_the_client_alone(room: Room) -> None:
    found = []
    for client, name in ((room.pair.mount, "mounted"), (room.pair.native, "native")):
        file = write(room.source, name, BYTES)
        os.truncate(file, 64 << 20)
        root = os.fsdecode(client.value("root"))
        argv = [sys.executable, "-c", TOUCH_BEYOND, f"{root}/{name}", file]
        ended = subprocess.run(argv, capture_output=True, timeout=20, check=False)
        found.append((ended.returncode, ended.stdout))
    assert found == [(-signal.SIGBUS, b"%d\n" % BYTES[4999])] * 2
    assert room.pair.mount.value("content('mounted')[:5000]") == BYTES[:5000]


def test_what_the_daemon_has_mapped_may_be_truncated(mounted, pairs, source) -> None:
    file = write(source, "file", BYTES)
    daemon = mounted("--path", "mmap", "--cache-timeout", "0")
    pair = pairs(daemon)
    pair.same("fd = opened('file')")
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    assert counts(daemon).datapath["windows"]["count"] > 0
    for size in (500_000, 4096, 1, 0):
        os.truncate(file, size)
        pair.same("(forget_pages(fd), digest(os.pread(fd, 1 << 20, 0)))")
    assert daemon.process.poll() is None


@pytest.mark.parametrize("path", ALL_PATHS)
def test_what_is_appended_is_read_by_who_has_the_file_open(mounted, pairs, source, path) -> None:
    file = write(source, "file", BYTES[:5000])
    pair = pairs(mounted("--path", path, "--cache-timeout", "0"))
    pair.same("fd = os.open(p('file'), os.O_RDONLY)")
    pair.same("digest(os.pread(fd, 1 << 20, 0))")
    for end in (5001, 8192, 100_000):
        with open(file, "ab") as grows:
            grows.write(BYTES[grows.tell() : end])
        assert pair.same("digest(os.pread(fd, 1 << 20, 0))")[0] == end
