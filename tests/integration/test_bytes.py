"""The bytes of files, by every serving path and every method of reading.

docs/semantics.md, "Operations". The clients read the same ranges on the mount and on the backing
directory; the status must show only this path.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.client import Pair
from tests.integration.conftest import (
    ALL_PATHS,
    NO_PASSTHROUGH,
    PASSTHROUGH,
    pair_of,
    serving,
    write,
)
from tests.integration.counts import Counts, counts
from tests.support import Daemon, requires

pytestmark = requires("mounting")

SIZE = (3 << 20) + 1234
BLOCKS = (SIZE + 4095) & ~4095  # O_DIRECT reads whole blocks, including the last
WAYS = ["by_read", "by_mmap", "by_sendfile", "by_splice"]
EXAMPLES = settings(deadline=None, max_examples=15)

# Offsets before, at and after every kind of edge: block, page, request, end of the file.
OFFSETS = st.one_of(
    st.integers(0, SIZE + 70_000),
    st.sampled_from([0, 1, 4095, 4096, 131_071, 131_072, 1 << 20, SIZE - 1, SIZE, SIZE + 1]),
)
SIZES = st.one_of(
    st.integers(0, 300_000), st.sampled_from([0, 1, 4096, 131_072, 131_073, 1 << 20, SIZE])
)
RUNS = st.lists(st.tuples(OFFSETS, SIZES), min_size=1, max_size=6)


class Served:
    """A mount by one path, with a file of random bytes, and clients on both sides."""

    def __init__(self, path: str, daemon: Daemon, pair: Pair) -> None:
        self.path = path
        self.daemon = daemon
        self.same = pair.same
        self.mount = pair.mount

    def require_path(self, before: Counts) -> None:
        """Require that this path served the READs since `before`, or fell back with a reason."""
        now = counts(self.daemon)
        served = {name: n - before.paths().get(name, 0) for name, n in now.paths().items()}
        reads = now.reads - before.reads
        if self.path in ("passthrough", "auto"):
            assert reads == 0, served
            return
        assert served.get(self.path, 0) > 0, served
        others = reads - served[self.path]
        assert others <= now.reason(f"{self.path}_") - before.reason(f"{self.path}_"), served


@pytest.fixture(scope="module", params=[*ALL_PATHS, pytest.param("auto", marks=PASSTHROUGH.marks)])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("bytes")
    source = base / "source"
    source.mkdir()
    generator = random.Random(SIZE)
    for name in ("file", "other"):
        (source / name).write_bytes(generator.randbytes(SIZE))
    for size in (0, 1, 4095, 4096, 4097):
        (source / str(size)).write_bytes(generator.randbytes(size))
    with (
        serving(base, str(source), "--path", request.param) as daemon,
        pair_of(daemon) as pair,
    ):
        yield Served(request.param, daemon, pair)


@pytest.mark.parametrize("way", WAYS)
@EXAMPLES
@given(runs=RUNS)
def test_any_run_is_the_same_as_natively(
    served: Served, way: str, runs: list[tuple[int, int]]
) -> None:
    served.same(f"{way}('file', {runs})")


@pytest.mark.parametrize("way", [*WAYS, "by_direct"])
def test_the_whole_file_comes_by_the_path_that_was_asked_for(served: Served, way: str) -> None:
    before = counts(served.daemon)
    served.same(f"{way}('other', [(0, {BLOCKS})])")
    served.require_path(before)


@EXAMPLES
@given(runs=RUNS)
def test_aligned_runs_past_the_page_cache_are_the_same(
    served: Served, runs: list[tuple[int, int]]
) -> None:
    aligned = [(offset & ~4095, (size + 4095) & ~4095) for offset, size in runs]
    served.same(f"by_direct('file', {aligned})")


@EXAMPLES
@given(runs=RUNS)
def test_runs_past_the_page_cache_need_no_alignment_but_the_backing_file_s(
    served: Served, runs: list[tuple[int, int]]
) -> None:
    past_the_cache = served.mount.value(f"by_direct('file', {runs})")
    if served.path in ("passthrough", "auto"):
        served.same(f"by_direct('file', {runs})")
    else:
        assert past_the_cache == served.mount.value(f"by_read('file', {runs})")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097])
def test_a_small_file_is_read_to_its_end_and_not_further(served: Served, size: int) -> None:
    served.same(f"digest(content('{size}'))")
    served.same(f"by_read('{size}', [({size}, 1), ({max(size - 1, 0)}, 2), (0, 1 << 20)])")


def test_several_files_at_once_do_not_mix(served: Served) -> None:
    served.same("files = [opened('file'), opened('other')]; choose = random.Random(7)")
    runs = "[(choose.choice(files), choose.randrange(3 << 20)) for _ in range(300)]"
    served.same(f"digest(b''.join(os.pread(file, 5000, offset) for file, offset in {runs}))")
    served.same("for file in files: os.close(file)")


@requires("root")
def test_auto_without_passthrough_chooses_by_the_size_of_the_request(mounted, source, pairs):
    write(source, "file", random.Random(1).randbytes(SIZE))
    daemon = mounted("--transport", "dev", env=NO_PASSTHROUGH)
    pair = pairs(daemon)
    pair.same(f"by_direct('file', [(4096 * n, 4096) for n in range(50)] + [(0, {BLOCKS})])")
    after = counts(daemon)
    assert after.served("pool") >= 50
    assert after.served("splice") >= 3
    assert after.fallbacks["splice_too_small"] == after.served("pool")


def test_a_file_is_always_ready_and_the_kernel_asks_once(served: Served) -> None:
    served.same("import select; poller = select.poll()")
    served.same("fd = opened('file'); poller.register(fd)")
    served.same("[events for _, events in poller.poll(0)]")
    served.same("[len(found) for found in select.select([fd], [fd], [fd], 0)]")
    served.same("os.close(fd)")
    after = counts(served.daemon)
    if after.datapath:  # without it, every request is an upcall
        assert after.request("POLL") == 1
        assert "poll" not in after.control["upcalls"]
