"""Corrupted images give an error, and never a byte of another file."""

import contextlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.frozen.conftest import hard_tree
from zcfuse.frozen import DamagedImageError, FrozenTree, ImageError, Options, freeze
from zcfuse.frozen._about import HEADER, digest_of, header_of
from zcfuse.frozen._image_file import ImageFile
from zcfuse.frozen._layout import XATTR_PREFIXES
from zcfuse.frozen._xattrs import REDIRECT
from zcfuse.tree import Concat, Dir, Mirror, Slice, VirtualTree

SECRET = b"never to be seen"

tolerated = contextlib.suppress(OSError, ImageError)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image of a hard tree and of slices, beside a file that it does not name."""
    directory = tmp_path_factory.mktemp("hostile")
    root = directory / "root"
    root.mkdir()
    hard_tree(os.fsencode(root))
    os.truncate(root / "huge", 70_000)
    (directory / "secret").write_bytes(SECRET)
    (directory / "shard").write_bytes(bytes(200_000))
    shard = str(directory / "shard")
    joined = Concat([Slice(shard, 1, 66_000), Slice(shard, 3, 70_000)])
    tree = VirtualTree(Dir({"m": Mirror(root), "s": Slice(shard, 512, 99_999), "j": joined}))
    path = str(directory / "image")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    freeze(tree, fd, Options(source="", roots=[os.fsencode(root)]))
    os.close(fd)
    return path


def signed(path):
    """Correct the digest of a changed image, so that the checks of its parts must find the
    change."""
    file = ImageFile(path)
    _, offset, size, _ = HEADER.unpack(file.read(0, HEADER.size))
    digest = digest_of(file)
    file.close()
    with open(path, "r+b") as changed:
        changed.write(header_of(offset, size, digest))


def walk(path):
    """Read everything that an image shows and that is readable; return the bytes."""
    tree = FrozenTree(path)
    read = b""
    left = [tree.root]
    for _ in range(300):
        if not left:
            break
        node = left.pop()
        with tolerated:
            for _, name, below, _ in tree.listing(node).entries(0):
                tree.lookup(node, name)
                if name not in (b".", b".."):
                    left.append(below)
        for question in (tree.attributes, tree.readlink, tree.listxattr, tree.describe):
            with tolerated:
                question(node)
        with tolerated:
            file = tree.open(node)
            read += file.pread(1000, 0)
            file.close()
    tree.close()
    return read


def test_an_image_of_which_a_byte_was_changed_is_refused(image, tmp_path):
    data = bytearray(Path(image).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed").write_bytes(data)
    with pytest.raises(DamagedImageError, match="damaged"):
        FrozenTree(tmp_path / "changed")


@pytest.mark.parametrize("size", [0, 10, 1023, 1200, 4096])
def test_an_image_that_was_cut_off_is_refused(image, tmp_path, size):
    (tmp_path / "cut").write_bytes(Path(image).read_bytes()[:size])
    with pytest.raises(ImageError):
        FrozenTree(tmp_path / "cut")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_changed_bytes_are_errors_and_show_no_byte_of_another_file(data, image, tmp_path):
    changed = bytearray(Path(image).read_bytes())
    places = st.integers(1024, len(changed) - 1)
    values = st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255))
    for at, value in data.draw(st.lists(st.tuples(places, values), min_size=1, max_size=40)):
        changed[at] = value
    path = str(tmp_path / "changed")
    with open(path, "wb") as file:
        file.write(changed)
    signed(path)
    with contextlib.suppress(ImageError):
        assert SECRET not in walk(path)


@pytest.mark.parametrize("redirect", [b"/../secret", b"/m/../../secret", b"secret", b"/", b""])
def test_a_redirect_leads_nowhere_outside_its_root(image, tmp_path, redirect):
    data = Path(image).read_bytes()
    (index,) = (index for index, prefix in XATTR_PREFIXES.items() if prefix == REDIRECT)
    found = re.search(re.escape(bytes([0, index])) + b"(..)/", data, re.DOTALL)
    assert found is not None
    begin, length = found.end(1), int.from_bytes(found[1], "little")
    value = redirect.ljust(length, b"/")[:length] if redirect else b"\0" * length
    path = str(tmp_path / "changed")
    with open(path, "wb") as file:
        file.write(data[:begin] + value + data[begin + length :])
    signed(path)
    assert SECRET not in walk(path)
