"""The kernel's overlayfs with the mount as a lower layer: reads through it, and copy-up.

Filesystems stack at most two deep. The mount counts as one with ``--stack-depth 1`` and as two
with 2; over the latter the kernel mounts no overlayfs.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.conftest import COMMAND_DEADLINE_S, kernel_mount, write
from tests.integration.counts import counts
from tests.programs.records import Record
from tests.programs.served import FAST, Served, mounted_by, served_mount
from tests.support import requires

pytestmark = requires("mounting", "root", "overlay")

SIZE: Final = 4 << 20

# Reads a file and its mapping; prints both hashes.
READ: Final = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.sha256(file.read()).hexdigest())
    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        print(hashlib.sha256(mapping).hexdigest())
"""
APPEND: Final = """
import sys
with open(sys.argv[1], "ab") as file:
    file.write(b"in the upper layer")
"""


def fill(source: str) -> None:
    os.mkdir(f"{source}/sub")
    for name in ("file", "other", "sub/file"):
        write(source, name, random.Random(name).randbytes(SIZE))


served = served_mount(fill, FAST)


@contextlib.contextmanager
def overlay(lower: str, base: Path) -> Iterator[str]:
    """An overlayfs over `lower` with the upper layer on a new filesystem; returns its path."""
    layers = base / "layers"
    layers.mkdir()
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", str(layers)):
        for name in ("upper", "work", "merged"):
            (layers / name).mkdir()
        directories = f"lowerdir={lower},upperdir=upper,workdir=work"
        merged = str(layers / "merged")
        with kernel_mount("-t", "overlay", "-o", directories, "zcfuse-tests", merged, cwd=layers):
            yield merged


def test_what_is_read_through_an_overlayfs_is_what_the_backing_tree_has(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with overlay(served.mountpoint, tmp_path) as merged:
        with served.proof(delivered=2 * SIZE) as proof:
            for name in ("file", "sub/file"):
                found = served.run(sys.executable, "-c", READ, f"{merged}/{name}").stdout
                assert found == served.native(sys.executable, "-c", READ, f"{{}}/{name}").stdout
        served.run("diff", "-r", merged, served.source)
    record("overlayfs over the mount", os.uname().release, "files, read and mapped", proof)


def test_a_file_is_copied_up_and_the_layer_below_stays_as_it_was(
    served: Served, record: Record, tmp_path: Path
) -> None:
    with overlay(served.mountpoint, tmp_path) as merged:
        with served.proof(delivered=SIZE) as proof:
            served.run(sys.executable, "-c", APPEND, f"{merged}/other")
        copied = served.run("cat", f"{merged}/other").stdout
        upper = os.stat(tmp_path / "layers" / "upper" / "other")
    original = random.Random("other").randbytes(SIZE)
    assert copied == original + b"in the upper layer"
    assert upper.st_size == len(copied)
    assert served.run("cat", "{}/other").stdout == original
    record("overlayfs, a copy up", os.uname().release, "the copy and the file below", proof)


@requires("passthrough")
def test_over_a_mount_of_stack_depth_two_the_kernel_mounts_no_overlayfs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fill(str(source))
    with (
        mounted_by(tmp_path, str(source), "passthrough", "--stack-depth", "2") as served,
        pytest.raises(subprocess.CalledProcessError) as refused,
        overlay(served.mountpoint, tmp_path),
    ):
        pass
    assert refused.value.cmd[0] == "mount"
    assert refused.value.returncode == 32


@requires("passthrough")
def test_over_a_mount_of_a_stacked_tree_an_overlayfs_is_served_without_passthrough(
    tmp_path: Path,
) -> None:
    below, above = tmp_path / "below", tmp_path / "above"
    for directory in (below, above, below / "lower"):
        directory.mkdir()
    fill(str(below / "lower"))
    with (
        overlay(str(below / "lower"), below) as stacked,
        mounted_by(tmp_path, stacked, "auto") as served,
        overlay(served.mountpoint, above) as merged,
    ):
        command = ["diff", "-r", merged, str(below / "lower")]
        subprocess.run(command, check=True, timeout=COMMAND_DEADLINE_S)
        found = counts(served.daemon)
    assert found.opens == {"cached": 3}
    assert found.reason("passthrough_stacked") == 3
    assert found.served("splice") > 0
