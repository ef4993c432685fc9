"""Clients that are killed, or give up, during a slow read.

The slow backing is a zcfuse mount with a stopped daemon: a mount on a mount.
"""

from __future__ import annotations

import os
import signal

import pytest

from tests.integration.conftest import CACHED_PATHS, RING, RING_OPTIONS, write
from tests.integration.counts import counts, eventually
from tests.integration.test_endings import GONE, frozen, is_reading
from tests.support import requires

pytestmark = requires("mounting")

# Far enough from the start to be beyond readahead.
FAR = 40 << 20


@pytest.fixture
def slow(mounted, source, mountpoint, tmp_path, request):
    """A mount of another mount, by a path: (the slow daemon, the daemon on top of it)."""
    path = write(source, "file", os.urandom(4096))
    os.truncate(path, 64 << 20)
    with open(path, "r+b") as file:
        file.seek(FAR)
        file.write(os.urandom(1 << 20))
    write(source, "other", b"other")
    (tmp_path / "top").mkdir()
    below = mounted("--path", "pool")

    def mount(path: str, *options: str):
        by = ("--path", path)
        if path == "ring":
            request.getfixturevalue("ring_switch")
            by = RING_OPTIONS
        top = mounted(*by, *options, source=mountpoint, mountpoint=str(tmp_path / "top"))
        return below, top

    return mount


@pytest.mark.parametrize("path", ["naive", "upcall", *CACHED_PATHS, RING])
def test_a_client_killed_in_the_middle_of_a_read_harms_nobody(
    slow, clients, pairs, source, path
) -> None:
    below, top = slow(path)
    client = clients(top)
    client.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    with frozen(below):
        client.begin(f"_direct(fd, {FAR}, 1 << 16)")
        assert eventually(lambda: is_reading(client))
        client.process.send_signal(signal.SIGKILL)
    client.process.wait(20)
    pair = pairs(top, native=source)
    pair.same(f"by_read('file', [({FAR}, 1 << 20), (0, 5000)])")
    pair.same("content('other')")
    assert eventually(lambda: counts(top).datapath.get("upcalls_out", 0) == 0)
    assert path == "naive" or counts(top).datapath["transport"]["entries_busy"] == 0


@pytest.mark.parametrize("path", [*CACHED_PATHS, RING])
def test_an_interrupt_of_a_read_that_holds_a_lease_is_counted_and_not_forwarded(
    slow, clients, path
) -> None:
    below, top = slow(path)
    client = clients(top)
    # The kernel interrupts only a client's own wait: one page, without readahead.
    client.value("mapping = mmap.mmap(os.open(p('file'), os.O_RDONLY), 0, prot=mmap.PROT_READ)")
    client.value("mapping.madvise(mmap.MADV_RANDOM)")
    before = counts(top)
    with frozen(below):
        client.begin(f"mapping[{FAR}]")
        assert eventually(lambda: counts(top).reads > before.reads)
        client.process.send_signal(signal.SIGKILL)
        assert eventually(lambda: counts(top).datapath["interrupts"] > 0)
    client.process.wait(20)
    assert "INTERRUPT" not in counts(top).datapath["upcalls"]


@pytest.mark.parametrize("path", [*CACHED_PATHS, RING])
def test_a_read_that_is_stuck_keeps_nobody_else_from_what_is_there(slow, clients, path) -> None:
    below, top = slow(path, "--threads", "2")
    client = clients(top)
    client.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    near = client.value("_direct(fd, 0, 4096)")
    with frozen(below):
        client.begin(f"_direct(fd, {FAR}, 1 << 16)")
        assert eventually(lambda: is_reading(client))
        # The status needs nothing from the slow mount.
        assert counts(top).datapath["directories"]["open_files"] == 1
    assert client.finish()[0] == "value"
    assert client.value("_direct(fd, 0, 4096)") == near


@pytest.mark.parametrize("path", [*CACHED_PATHS, RING])
def test_a_daemon_is_ended_while_a_read_is_stuck_in_its_backing(slow, clients, path) -> None:
    below, top = slow(path)
    client = clients(top)
    client.value("fd = os.open(p('file'), os.O_RDONLY | os.O_DIRECT)")
    before = counts(top)
    with frozen(below):
        client.begin(f"_direct(fd, {FAR}, 1 << 16)")
        assert eventually(lambda: counts(top).reads > before.reads)
        top.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: "SIGTERM" in top.log())
        top.process.send_signal(signal.SIGTERM)
        assert client.finish()[1] in GONE
    assert top.fails() in (0, 1)
