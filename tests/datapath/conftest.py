"""Fixtures of the protocol tier: a data path between two socket pairs, and files to serve."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.datapath.kernel import ROOT, FakeKernel
from zcfuse.datapath import arm_faults

SIZE = 3 * 1024 * 1024 + 1234


@pytest.fixture
def backing(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """A descriptor of a file of random bytes, and those bytes."""
    data = os.urandom(SIZE)
    file = tmp_path / "backing"
    file.write_bytes(data)
    fd = os.open(file, os.O_RDWR)
    yield fd, data
    os.close(fd)


@pytest.fixture
def kernel() -> Iterator[Callable[..., FakeKernel]]:
    """Make data paths; the end stops them and disarms all faults."""
    made: list[FakeKernel] = []

    def make(**settings: object) -> FakeKernel:
        made.append(FakeKernel(**settings))
        return made[-1]

    yield make
    arm_faults("")
    for one in made:
        one.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with one file of each kind."""
    source = tmp_path / "source"
    (source / "dir" / "deep").mkdir(parents=True)
    (source / "file").write_bytes(b"some bytes")
    (source / "dir" / "inner").write_bytes(b"inner bytes")
    os.link(source / "file", source / "dir" / "link")
    os.symlink("dir/inner", source / "symlink")
    os.mkfifo(source / "fifo")
    return source


@pytest.fixture
def leased(kernel: Callable[..., FakeKernel], tree: Path) -> Callable[..., FakeKernel]:
    """Make a data path that mirrors `tree` from the root, except for what is `kept`."""

    def make(kept: Sequence[bytes] = (), **settings: object) -> FakeKernel:
        fake = kernel(**{"path": "pool", "cache_timeout": 1000, **settings})
        fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
        fake.path.lease_directory(ROOT, fd, kept)
        os.close(fd)
        return fake

    return make
