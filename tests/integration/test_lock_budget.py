"""Memory that pool and windows lock: within the budget, and harmless beyond it."""

from __future__ import annotations

import random
import re
from typing import Any, Final

import pytest

from tests.integration.conftest import CACHED_PATHS, write
from tests.integration.counts import counts, eventually
from tests.support import Daemon, requires

pytestmark = requires("mounting")

FILES: Final = 24
BYTES: Final = 1 << 20


def make_files(source: str) -> None:
    for n in range(FILES):
        write(source, f"file-{n}", random.Random(n).randbytes(BYTES + n))


def locked(daemon: Daemon) -> int:
    """The daemon's locked bytes, by the kernel."""
    with open(f"/proc/{daemon.pid}/status") as file:
        found = re.search(r"^VmLck:\s*(\d+) kB", file.read(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def windows(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = counts(daemon).datapath["windows"]
    return found


@requires("locked memory")
def test_more_open_files_than_the_budget_holds_are_all_read(mounted, pairs, source) -> None:
    make_files(source)
    daemon = mounted("--path", "mmap", "--lock-budget", "6M")
    pair = pairs(daemon)
    pair.same(f"fds = [opened(f'file-{{n}}') for n in range({FILES})]")
    for _ in range(2):
        pair.same("[digest(os.pread(fd, 2 << 20, 0)) for fd in fds]")
        pair.same("[forget_pages(fd) for fd in fds] and None")
    after = windows(daemon)
    assert after["locked"] <= locked(daemon) <= 6 << 20
    assert after["evictions"] + after["unlocked"] > 0
    assert counts(daemon).served("mmap") > 0


@pytest.mark.parametrize("path", CACHED_PATHS)
def test_a_budget_of_nothing_locks_nothing_and_says_so(mounted, pairs, source, path) -> None:
    make_files(source)
    daemon = mounted("--path", path, "--lock-budget", "0")
    pairs(daemon).same(f"[by_read(f'file-{{n}}', [(0, {2 * BYTES})]) for n in range({FILES})]")
    assert locked(daemon) == 0
    after = counts(daemon)
    assert after.served(path) > 0
    assert after.datapath["pool"]["locked"] == 0
    if path != "splice":
        assert after.reason(f"{path}_unlocked") >= after.served(path)


@pytest.mark.parametrize("path", ["pool", "mmap"])
def test_what_the_kernel_does_not_let_lock_is_used_unlocked(mounted, pairs, source, path) -> None:
    make_files(source)
    daemon = mounted("--path", path, env={"ZCFUSE_FAULTS": "mlock:ENOMEM"})
    pairs(daemon).same(f"by_read('file-3', [(0, {2 * BYTES})])")
    assert locked(daemon) == 0
    assert counts(daemon).reason(f"{path}_unlocked") > 0


@pytest.mark.parametrize("path", CACHED_PATHS)
def test_without_prefaulting_the_bytes_are_the_same(mounted, pairs, source, path) -> None:
    make_files(source)
    daemon = mounted("--path", path, "--no-prefault")
    pairs(daemon).same(f"[by_read(f'file-{{n}}', [(0, {2 * BYTES})]) for n in range(5)]")
    assert counts(daemon).served(path) > 0


def test_windows_go_when_their_files_are_closed(mounted, pairs, source) -> None:
    make_files(source)
    daemon = mounted("--path", "mmap")
    pair = pairs(daemon)
    pair.same("fd = opened('file-1')")
    pair.same("digest(os.pread(fd, 2 << 20, 0))")
    assert windows(daemon)["count"] > 0
    pair.same("os.close(fd)")
    # The kernel may send RELEASE late.
    assert eventually(lambda: windows(daemon)["count"] == 0)
