"""A backing filesystem that is itself stacked, as the root of a container is."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.integration.conftest import kernel_mount, write
from tests.integration.counts import counts
from tests.support import requires
from zcfuse.reasons import reason_advice

pytestmark = requires("mounting", "root", "overlay", "passthrough")

SIZE = 2 << 20
WHOLE = f"[digest(content(name)) for name in ('lower', 'upper')] + by_mmap('lower', [(1, {SIZE})])"


@pytest.fixture
def overlay(tmp_path, source) -> Iterator[str]:
    """An overlayfs on `source`, with a file of each layer."""
    layers = tmp_path / "layers"
    layers.mkdir()
    # A new filesystem: the upper layer must not be on an overlayfs.
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", str(layers)):
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir()
        for name in ("lower", "upper"):
            write(str(layers / name), name, random.Random(name).randbytes(SIZE))
        directories = "lowerdir=lower,upperdir=upper,workdir=work"
        overlay = ("-t", "overlay", "-o", directories, "zcfuse-tests", source)
        with kernel_mount(*overlay, cwd=layers):
            yield source


def test_a_stacked_file_is_read_without_passthrough_and_the_reason_names_the_remedy(
    overlay, mounted, pairs
) -> None:
    daemon = mounted()
    pairs(daemon).same(WHOLE)
    after = counts(daemon)
    assert after.opens.keys() == {"cached"}
    assert after.fallbacks["passthrough_stacked"] == after.opens["cached"]
    assert "--stack-depth 2" in reason_advice("passthrough_stacked")
    assert after.reads == sum(after.paths().values()) > 0


def test_a_stack_depth_of_two_passes_it_through(overlay, mounted, pairs) -> None:
    daemon = mounted("--stack-depth", "2")
    pairs(daemon).same(WHOLE)
    after = counts(daemon)
    assert after.opens.keys() == {"passthrough"}
    assert after.reads == 0


@pytest.mark.parametrize("path", ["naive", "upcall", "pool", "mmap", "splice"])
def test_every_other_path_takes_a_stacked_file(overlay, mounted, pairs, path) -> None:
    daemon = mounted("--path", path)
    pairs(daemon).same(WHOLE)
    assert counts(daemon).served(path) > 0


@pytest.mark.parametrize("depth", ["1", "2"])
def test_a_file_that_is_copied_up_is_another_file_behind_its_name(
    overlay, mounted, pairs, depth: str
) -> None:
    pair = pairs(mounted("--stack-depth", depth, "--cache-timeout", "0"))
    pair.same(WHOLE)
    with open(f"{overlay}/lower", "r+b") as file:
        file.write(b"in the upper layer now")
    pair.same(WHOLE)


@requires("io_uring")
@pytest.mark.usefixtures("ring_switch")
@pytest.mark.ring
@pytest.mark.parametrize(("depth", "kind"), [("1", "dev"), ("2", "uring")])
def test_auto_takes_no_ring_for_a_stacked_source_that_splice_serves(
    overlay, mounted, pairs, depth: str, kind: str
) -> None:
    daemon = mounted("--stack-depth", depth)
    pairs(daemon).same(WHOLE)
    found = counts(daemon).datapath["transport"]
    assert found["kind"] == kind
    assert found["reason"] == ("ring_stacked_source" if kind == "dev" else "")
