"""Failing and short system calls in the data path: an errno or a fallback, never harm.

The daemon's environment sets the faults (zcfuse/datapath/native/sys/faults.hpp). Another path
serves what the best one cannot, with the reason in the status.
"""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import CACHED_PATHS, write
from tests.integration.counts import counts
from tests.support import requires

pytestmark = requires("mounting")

BYTES = os.urandom(3 << 20)
CAP_SYS_RESOURCE = 24
WHOLE = f"by_direct('file', [(0, {len(BYTES)})])"


@pytest.fixture
def faulty(mounted, pairs, source):
    """Mounts with faults: a daemon, and a pair of clients with a file of random bytes."""
    write(source, "file", BYTES)

    def mount(faults: str, path: str, *options: str):
        daemon = mounted("--path", path, *options, env={"ZCFUSE_FAULTS": faults})
        return daemon, pairs(daemon)

    return mount


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("splice", "splice_in:EIO"),
        ("splice", "splice_in:ENOMEM"),
        ("splice", "splice_out:EIO"),
        ("pool", "preadv:EIO"),
        ("pool", "preadv:ENOMEM"),
        ("mmap", "splice_out:EIO"),
    ],
)
def test_an_error_in_the_middle_of_a_reply_is_the_client_s_and_the_connection_lives(
    faulty, path: str, fault: str
) -> None:
    daemon, pair = faulty(f"{fault}:after=2:count=1", path, "--threads", "1")
    read = "[_direct(fd, offset, 1 << 16) for offset in (0, 1 << 16, 1 << 17, 1 << 18)]"
    pair.same("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    answers = pair.mount.value(read)
    assert [answer for answer in answers if isinstance(answer, str)] == [fault.split(":")[1]]
    pair.same(read)
    assert sum(by["errors"] for by in counts(daemon).datapath["paths"].values()) == 1


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("splice", "splice_in:short"),
        ("pool", "preadv:short"),
        ("mmap", "vmsplice:short:after=3"),
        ("splice", "vmsplice:short:after=3"),
    ],
)
def test_calls_that_do_half_of_what_was_asked_lose_no_byte(faulty, path: str, fault: str) -> None:
    daemon, pair = faulty(fault, path)
    pair.same(WHOLE)
    pair.same(f"by_read('file', [(0, {len(BYTES)}), (12345, 99999)])")
    after = counts(daemon)
    assert sum(by["short"] for by in after.datapath["paths"].values()) + after.reason(path) > 0


@pytest.mark.parametrize(
    ("path", "fault", "reason"),
    [
        ("splice", "splice_in:EINVAL", "splice_refused"),
        ("splice", "splice_in:EAGAIN", "splice_pipe_too_short"),
        ("splice", "pipe:EPERM", "splice_no_pipe"),
        ("splice", "vmsplice:EFAULT", "splice_no_pipe"),
        ("mmap", "pipe:EMFILE", "mmap_no_pipe"),
        ("mmap", "vmsplice:EFAULT", "mmap_no_pipe"),
        ("mmap", "mmap:ENOMEM:after=4", "mmap_refused"),
    ],
)
def test_a_path_that_cannot_be_taken_is_left_with_a_reason(
    faulty, path: str, fault: str, reason: str
) -> None:
    daemon, pair = faulty(fault, path, "--threads", "1")
    pair.same(WHOLE)
    after = counts(daemon)
    assert after.reason(reason) == after.served("pool") > 0
    assert after.reads == sum(after.paths().values())


def _small_pipe() -> str:
    """Leaves the pipe that sizes requests alone, and keeps the serving pipe small.

    The first pipe is enlarged; every attempt to enlarge the other fails. Without CAP_SYS_RESOURCE
    the first one needs one more attempt and the other has one fewer.
    """
    with open("/proc/self/status") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    free = bool(int(effective.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
    return "pipe:EPERM:after=3:count=6" if free else "pipe:EPERM:after=4:count=5"


@requires("root")
@pytest.mark.parametrize("path", ["splice", "mmap"])
def test_requests_larger_than_the_pipe_are_served_by_pool(faulty, path: str) -> None:
    daemon, pair = faulty(_small_pipe(), path, "--threads", "1")
    pair.same(WHOLE)
    pair.same("by_direct('file', [(4096 * n, 8192) for n in range(20)])")
    after = counts(daemon)
    assert after.datapath["transport"]["pipe_slots"] == 16
    assert after.reason(f"{path}_pipe_too_short") == after.served("pool") > 0
    assert after.served(path) >= 20


@requires("passthrough")
@pytest.mark.parametrize(
    ("errno", "reason"),
    [
        ("EPERM", "passthrough_not_permitted"),
        ("ELOOP", "passthrough_stacked"),
        ("EMFILE", "passthrough_refused: EMFILE"),
    ],
)
@pytest.mark.parametrize("path", ["auto", "passthrough"])
def test_a_backing_file_that_is_refused_is_read_otherwise_with_the_reason(
    faulty, path: str, errno: str, reason: str
) -> None:
    daemon, pair = faulty(f"backing_open:{errno}", path)
    pair.same(WHOLE)
    after = counts(daemon)
    assert after.opens == {"cached": 1}
    assert after.fallbacks[reason] == 1
    assert sum(after.paths().values()) == after.reads > 0


@requires("passthrough")
def test_the_mode_of_an_inode_is_held_until_its_last_close(faulty) -> None:
    daemon, pair = faulty("backing_open:EPERM:count=1", "auto")
    pair.same("first = os.open(p('file'), os.O_RDONLY)")
    pair.same("second = os.open(p('file'), os.O_RDONLY)")
    assert counts(daemon).opens == {"cached": 1}
    pair.same("(os.close(first), os.close(second)) and None")
    pair.same("digest(content('file'))")
    pair.same("digest(content('file'))")
    assert counts(daemon).opens["passthrough"] >= 1


@pytest.mark.parametrize("path", CACHED_PATHS)
def test_a_device_that_cannot_be_cloned_is_shared(faulty, path: str) -> None:
    daemon, pair = faulty("clone:EPERM", path, "--threads", "3")
    pair.same("[by_read('file', [(offset, 9999)]) for offset in range(0, 3 << 20, 99_999)]")
    transport = counts(daemon).datapath["transport"]
    assert (transport["threads"], transport["cloned"]) == (3, 0)
    assert "EPERM" in transport["clone_error"]


def test_a_descriptor_that_cannot_be_copied_fails_the_open_alone(faulty) -> None:
    _, pair = faulty("dup:EMFILE:count=1", "auto", "--no-directory-lease")
    assert pair.mount.outcome("digest(content('file'))") == "EMFILE"
    pair.same("digest(content('file'))")


def test_a_descriptor_that_is_not_to_be_had_fails_the_open_alone(faulty) -> None:
    # One attempt, and another after releasing everything unused.
    _, pair = faulty("open:EMFILE:after=1:count=2", "auto")
    assert pair.mount.outcome("digest(content('file'))") == "EMFILE"
    pair.same("digest(content('file'))")
