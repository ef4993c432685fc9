"""What the kernel shows of an image is what FUSE shows, and what the tree showed."""

import ctypes
import mmap
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.conftest import seen_at
from tests.frozen.conftest import hard_tree, seen, seen_in
from tests.support import requires
from zcfuse.tree import Bytes, Concat, Dir, File, Mirror, Slice, Union, VirtualTree, Zeros

pytestmark = requires("root", "erofs", "xattr")


def directory(tmp_path, name="hard"):
    root = os.fsencode(tmp_path / name)
    os.mkdir(root)
    return root


@pytest.mark.parametrize("copy_up_to", [0, 5000, 1 << 30])
def test_the_kernel_and_fuse_show_a_hard_tree_as_it_is(copy_up_to, tmp_path, frozen, by_kernel):
    root = directory(tmp_path)
    hard_tree(root)
    os.truncate(os.path.join(root, b"huge"), 100)  # the dump reads it
    for size in (4096, 5001, 65_536, 65_537, 1 << 20):
        with open(os.path.join(root, b"%d" % size), "wb") as file:
            file.write(os.urandom(size))
    tree = Mirror(root)
    image, _ = frozen(tree, roots=[root], copy_up_to=copy_up_to)
    expected = seen(tree)
    assert seen_at(by_kernel(image)) == expected
    assert seen_in(image) == expected


def test_a_file_of_five_gibibytes_is_read_at_its_end(tmp_path, frozen, by_kernel):
    root = directory(tmp_path)
    with open(os.path.join(root, b"huge"), "wb") as file:
        file.seek(5 << 30)
        file.write(b"the end")
    image, _ = frozen(Mirror(root))
    place = by_kernel(image)
    with open(os.path.join(place, "huge"), "rb") as file:
        file.seek(5 << 30)
        assert file.read() == b"the end"


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(bytes(range(1, 252)) * 2000)
    return str(path)


parts = st.one_of(
    st.tuples(st.sampled_from([0, 512, 4096, 5120]), st.sampled_from([512, 700, 8192, 66_000])),
    st.binary(min_size=1, max_size=50),
    st.sampled_from([512, 4096, 70_000]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_files_of_parts_are_the_same_by_the_kernel(files, shard, frozen, by_kernel):
    def made(part):
        if isinstance(part, tuple):
            return Slice(shard, *part)
        return Bytes(part) if isinstance(part, bytes) else Zeros(part)

    entries = {str(name): Concat(map(made, file)) for name, file in enumerate(files)}
    tree = VirtualTree(Dir({**entries, "whole": File(shard)}))
    image, summary = frozen(tree)
    if not summary.about.fuse_only:
        assert seen_at(by_kernel(image)) == seen(tree)
    os.unlink(image)


def test_a_mapping_of_a_slice_shows_no_byte_behind_its_end(shard, frozen, by_kernel):
    image, summary = frozen(Dir({"s": Slice(shard, 512, 1000)}))
    assert len(summary.about.devices) == 1
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    with open(os.path.join(by_kernel(image), "s"), "rb") as file:
        # Python's own mmap maps no byte behind the end of a file.
        address = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        assert ctypes.string_at(address + 1000, 3096) == bytes(3096)
        libc.munmap(ctypes.c_void_p(address), 4096)


def test_a_frozen_union_of_many_layers_is_what_the_union_shows(tmp_path, frozen, by_kernel):
    layers = []
    for number in range(12):
        layer = tmp_path / "layers" / str(number)
        (layer / "d").mkdir(parents=True)
        (layer / "d" / f"only in {number}").write_text(f"{number}")
        (layer / "both").write_text(f"layer {number}")
        layers.append(layer)
    (layers[5] / "d" / ".wh.only in 9").write_text("")
    tree = Union(layers)
    image, _ = frozen(tree, roots=[os.fsencode(tmp_path / "layers")])
    assert seen_at(by_kernel(image)) == seen(tree)


def test_sixty_thousand_links_are_one_inode_under_a_hundred_thousand_names(
    tmp_path, frozen, by_kernel
):
    root = directory(tmp_path)
    first = os.path.join(root, b"linked")
    with open(first, "wb") as file:
        file.write(b"one inode")
    for number in range(60_000 - 1):
        os.link(first, os.path.join(root, b"link %d" % number))
    for number in range(40_000):
        os.symlink(b"x", os.path.join(root, b"other %d" % number))
    image, summary = frozen(Mirror(root))
    assert (summary.about.files, summary.about.other) == (1, 40_000)
    place = os.fsencode(by_kernel(image))
    assert len(os.listdir(place)) == 100_000
    statuses = {os.stat(os.path.join(place, b"link %d" % at)).st_ino for at in range(0, 59_999, 97)}
    assert statuses == {os.stat(os.path.join(place, b"linked")).st_ino}
    assert os.stat(os.path.join(place, b"linked")).st_nlink == 60_000
