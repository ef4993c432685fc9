"""Descriptions of a tree's nodes, for `zcfuse explain`."""

import os

import pytest

from zcfuse import Bytes, Concat, Dir, File, Mirror, Slice, Symlink, Union, Zeros
from zcfuse.tree import VirtualTree


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (File("/a"), "File /a"),
        (Slice("/a", 1000, 2000), "Slice: 2,000 bytes from byte 1,000 of File /a"),
        (Slice("/a", 5), "Slice: all from byte 5 of File /a"),
        (Concat(["/a", "/b"]), "Concat of 2 parts"),
        (Zeros(5000), "Zeros: a hole of 5,000 bytes"),
        (Bytes(b"hello"), "Bytes: 5 bytes in the daemon's memory"),
        (Symlink("/a"), "Symlink to /a"),
        (Dir({}), "Dir"),
    ],
)
def test_an_entry_says_what_it_is_made_of(entry, words):
    assert entry.describe() == words


def test_a_mirror_names_the_file_also_below_a_directory_of_a_program(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x")
    mirror = Mirror(tmp_path)
    tree = VirtualTree(Dir({"m": mirror}))
    node = tree.root
    for name in (b"m", b"d", b"file"):
        node, _ = tree.lookup(node, name)
    assert tree.describe(node) == f"mirror of {tmp_path}/d/file"
    mirror.close()


def test_a_mirror_that_describes_its_files_otherwise_is_leased_all_the_same(tmp_path):
    class Described(Mirror):
        def describe(self, node):
            return "a file of the archive of 1999"

    mirror = Described(tmp_path)
    assert mirror.lease() is not None
    assert mirror.describe(mirror.root) == "a file of the archive of 1999"
    mirror.close()


def test_a_union_names_the_layer_of_a_file_and_of_how_many_it_is_merged(tmp_path):
    for layer in ("top", "low"):
        os.makedirs(tmp_path / layer / "both")
    (tmp_path / "low" / "both" / "file").write_bytes(b"x")
    union = Union([tmp_path / "top", tmp_path / "low"])
    both, _ = union.lookup(union.root, b"both")
    file, _ = union.lookup(both, b"file")
    assert union.describe(file) == f"union, file of layer 2 of 2: {tmp_path}/low/both/file"
    assert union.describe(both).startswith("union of 2 directories, on top that of layer 1 of 2")
    union.close()
