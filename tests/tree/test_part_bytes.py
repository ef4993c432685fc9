"""The estimate of the bytes that travel without passthrough."""

import errno
import os
import tarfile

import pytest

from zcfuse.tree import Bytes, Concat, Dir, Filter, Mirror, Slice, VirtualTree, Zeros
from zcfuse.tree.archive import Archive

UNKNOWN = 1 << 20


class Policy(Dir):
    async def lookup(self, name, who):
        raise AssertionError("not asked before a mount")

    async def list(self, who):
        raise AssertionError("not asked before a mount")


class Failing(Dir):
    by_value = True

    def get(self, name):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("entries", "mean"),
    [
        ({}, 0),
        ({"whole": "/a"}, 0),
        ({"slice": Slice("/a", 10, 100)}, 100),
        ({"slice": Slice("/a", 10, 100), "whole": "/a"}, 50),
        ({"rest": Slice("/a", 10)}, UNKNOWN),
        ({"joined": Concat(["/a", Slice("/b", 0, 5)])}, UNKNOWN + 5),
        ({"hole": Zeros(7), "below": Dir({"bytes": Bytes(b"12345")})}, 6),
        ({"large": Bytes(bytes(1 << 20))}, 0),
        ({"asked": Policy(), "hole": Zeros(7)}, 7),
        ({"failing": Failing({"a": Zeros(1 << 30)}), "hole": Zeros(7)}, 7),
    ],
)
def test_it_is_the_mean_of_the_files_that_are_known_before_a_mount(entries, mean):
    assert VirtualTree(Dir(entries)).part_bytes() == mean
    assert Filter(Dir(entries)).part_bytes() == mean


def test_it_looks_at_the_upper_names_of_a_large_tree_only():
    below = Dir({f"{n}": Zeros(1000) for n in range(10_000)})
    tree = VirtualTree(Dir({"below": below, **{f"{n}": Zeros(10) for n in range(4095)}}))
    assert tree.part_bytes() == 10


def test_a_tree_within_a_directory_answers_for_itself(tmp_path):
    assert VirtualTree(Dir({"mirror": Mirror(tmp_path), "hole": Zeros(7)})).part_bytes() == 3


def test_an_archive_s_members_are_parts_of_it(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("a", "b"):
            (tmp_path / name).write_bytes(bytes(50_000))
            tar.add(tmp_path / name, name)
    archive = Archive(tmp_path / "a.tar")
    assert archive.part_bytes() == os.stat(tmp_path / "a.tar").st_size // 2
    archive.close()
