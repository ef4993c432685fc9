import errno
import os
import stat
import struct

import pytest

from tests.support import requires
from zcfuse.datapath import backing_xattr, shown_xattrs
from zcfuse.tree import Identity, Union

pytestmark = [pytest.mark.usefixtures("descriptors"), requires("xattr")]


@pytest.fixture
def layers(tmp_path):
    """Three empty layers, the topmost first."""
    made = [tmp_path / name for name in ("top", "middle", "bottom")]
    for layer in made:
        layer.mkdir()
    return made


IDENTITY = struct.Struct("=QQI")  # as SourceDirectory.find packs it


@pytest.fixture(params=["openat2", "walk"])
def union(layers, request):
    tree = Union(layers, openat2=request.param == "openat2")
    yield tree
    tree.close()


def put(layer, path, content="x"):
    where = layer / path
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(content)
    return where


def mark(path, name, value=b"y"):
    os.setxattr(path, name, value)


def resolve(tree, path):
    node = tree.root
    for name in os.fsencode(path).split(b"/"):
        node, _ = tree.lookup(node, name)
    return node


def content(tree, path):
    file = tree.open(resolve(tree, path))
    try:
        return file.pread(1 << 20, 0).decode()
    finally:
        file.close()


def names(tree, path=""):
    node = resolve(tree, path) if path else tree.root
    return sorted(os.fsdecode(entry[1]) for entry in tree.listing(node).entries(0))[2:]


def errno_of(call, *arguments):
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call(*arguments)
    return caught.value.errno


def test_the_topmost_file_wins_and_directories_merge(union, layers):
    for layer in layers:
        put(layer, "d/same", layer.name)
        put(layer, f"d/{layer.name}")
    assert names(union, "d") == ["bottom", "middle", "same", "top"]
    assert content(union, "d/same") == "top"


def test_a_file_hides_a_directory_below_and_a_directory_what_lies_behind_the_file(union, layers):
    put(layers[0], "n/a")
    put(layers[1], "n")
    put(layers[2], "n/c")
    assert names(union, "n") == ["a"]


@requires("root")
def test_a_device_whiteout_hides_the_name_and_is_not_shown(union, layers):
    os.mknod(layers[0] / "gone", stat.S_IFCHR, os.makedev(0, 0))
    put(layers[2], "gone")
    assert names(union) == []
    assert errno_of(union.lookup, union.root, b"gone") == errno.ENOENT


@requires("root")
def test_another_character_device_is_shown(union, layers):
    os.mknod(layers[0] / "null", stat.S_IFCHR, os.makedev(1, 3))
    assert names(union) == ["null"]


def test_a_whiteout_by_attribute_hides_the_name(union, layers):
    mark(put(layers[0], "gone", ""), "user.overlay.whiteout", b"")
    mark(layers[0], "user.overlay.opaque", b"x")
    put(layers[2], "gone")
    assert names(union) == []


def test_a_file_with_bytes_is_no_whiteout(union, layers):
    mark(put(layers[0], "file", "bytes"), "user.overlay.whiteout", b"")
    assert content(union, "file") == "bytes"


@pytest.mark.parametrize("namespace", ["user", pytest.param("trusted", marks=requires("root"))])
def test_an_opaque_directory_hides_the_layers_below(union, layers, namespace):
    put(layers[0], "d/top")
    mark(layers[0] / "d", f"{namespace}.overlay.opaque")
    put(layers[2], "d/bottom")
    assert names(union, "d") == ["top"]


def test_whiteouts_of_images_count_for_the_layers_below_only(union, layers):
    put(layers[1], ".wh.file")
    put(layers[1], "d/.wh..wh..opq")
    for layer in layers[1:]:
        put(layer, "file", layer.name)
        put(layer, f"d/{layer.name}")
    assert names(union) == ["d", "file"]
    assert content(union, "file") == "middle"
    assert names(union, "d") == ["middle"]


def test_names_of_whiteouts_are_never_found(union, layers):
    put(layers[0], ".wh.file")
    assert errno_of(union.lookup, union.root, b".wh.file") == errno.ENOENT


@requires("root")
def test_a_redirect_leads_to_another_name_below(union, layers):
    put(layers[0], "new/top")
    mark(layers[0] / "new", "trusted.overlay.redirect", b"/deep/old")
    put(layers[2], "deep/old/bottom", "moved")
    assert names(union, "new") == ["bottom", "top"]
    assert content(union, "new/bottom") == "moved"


@requires("root")
def test_a_metacopy_has_the_bytes_of_the_file_below(union, layers):
    top = put(layers[0], "file", "")
    os.truncate(top, 5)
    top.chmod(0o600)
    mark(top, "trusted.overlay.metacopy", b"")
    put(layers[2], "file", "bytes").chmod(0o644)
    assert content(union, "file") == "bytes"
    assert union.attributes(resolve(union, "file")).mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("user.overlay.metacopy", b""),  # any user may have set it
        pytest.param("trusted.overlay.metacopy", b"", marks=requires("root")),  # nothing below
    ],
)
def test_a_metacopy_without_bytes_is_refused(union, layers, attribute, value):
    top = put(layers[0], "file", "")
    os.truncate(top, 5)
    mark(top, attribute, value)
    assert errno_of(union.lookup, union.root, b"file") == errno.EIO
    assert names(union) == ["file"]


@pytest.mark.parametrize("redirect", [b"", b"../d", b"/", b"/a//b", b"a/b", b"/a/../../b"])
@requires("root")
def test_a_redirect_that_is_no_path_is_refused(union, layers, redirect):
    put(layers[0], "d/file")
    mark(layers[0] / "d", "trusted.overlay.redirect", redirect)
    assert errno_of(union.lookup, union.root, b"d") == errno.EIO


def test_a_redirect_that_anybody_may_have_set_is_refused(union, layers):
    put(layers[0], "d/file")
    mark(layers[0] / "d", "user.overlay.redirect", b"/secret")
    put(layers[2], "secret/file")
    assert errno_of(union.lookup, union.root, b"d") == errno.EIO


def test_without_sight_of_trusted_attributes_a_file_that_is_one_hole_is_refused(layers):
    tree = Union(layers, trusted=False)
    os.truncate(put(layers[0], "hole", ""), 5)
    put(layers[0], "empty", "")
    assert errno_of(tree.open, resolve(tree, "hole")) == errno.EIO
    assert content(tree, "empty") == ""
    tree.close()


def test_overlay_attributes_are_hidden_and_those_of_an_inner_overlay_unescaped():
    inner = b"user.overlay.overlay.opaque"
    assert shown_xattrs([b"user.a", b"trusted.overlay.opaque", inner]) == [
        b"user.a",
        b"user.overlay.opaque",
    ]
    assert backing_xattr(b"user.overlay.opaque") == inner
    assert backing_xattr(b"user.a") == b"user.a"


def test_no_layer_is_left_through_a_symlink_in_a_lower_one(union, layers, tmp_path):
    put(tmp_path, "outside/secret")
    put(layers[0], "d/top")
    put(layers[2], "d/bottom")
    directory = resolve(union, "d")
    (layers[2] / "d").rename(tmp_path / "moved")
    (layers[2] / "d").symlink_to(tmp_path / "outside")
    assert errno_of(union.lookup, directory, b"secret") == errno.ESTALE
    assert names(union, "d") == ["top"]


def test_a_directory_is_another_one_once_a_layer_below_has_a_part_of_it(union, layers):
    put(layers[0], "d/top")
    before = resolve(union, "d")
    put(layers[2], "d/bottom")
    after = resolve(union, "d")
    assert before.identity != after.identity
    assert union.attributes(before).ino == union.attributes(after).ino


def test_a_merged_directory_has_one_link_and_a_plain_one_its_own(union, layers):
    put(layers[0], "merged/sub/file")
    put(layers[1], "merged/file")
    put(layers[2], "plain/sub/file")
    assert union.attributes(resolve(union, "merged")).nlink == 1
    assert union.attributes(resolve(union, "plain")).nlink == (layers[2] / "plain").stat().st_nlink


def test_hard_links_are_one_file_and_equal_files_of_two_layers_are_two(union, layers):
    os.link(put(layers[0], "a"), layers[0] / "b")
    os.link(layers[0] / "a", layers[1] / "c")
    first, second, third = (resolve(union, name) for name in "abc")
    assert first.identity == second.identity != third.identity
    first.merge(second)
    (layers[0] / "a").unlink()
    assert union.attributes(first).size == 1


def test_a_listing_goes_on_from_any_offset_with_the_same_names(union, layers):
    for number in range(40):
        put(layers[number % 3], f"f{number}")
        put(layers[2], f"f{number}")
    listing = union.listing(union.root)
    whole = [(offset, name) for offset, name, _, _ in listing.entries(0)]
    for start, (offset, _) in enumerate(whole, 1):
        assert [(o, n) for o, n, _, _ in listing.entries(offset)] == whole[start:]


@pytest.mark.parametrize("inside", ["same", "below", "above"])
def test_layers_that_overlap_are_refused(layers, inside):
    (layers[0] / "d").mkdir()
    pairs = {
        "same": [layers[0], layers[0]],
        "below": [layers[0], layers[0] / "d"],
        "above": [layers[0] / "d", layers[0]],
    }
    assert errno_of(Union, pairs[inside]) == errno.ELOOP


@pytest.mark.parametrize("layers", [[], "/", b"/"])
def test_what_is_no_list_of_directories_is_refused(layers):
    with pytest.raises(ValueError, match="list"):
        Union(layers)


def test_a_name_that_is_too_long_for_every_layer(union):
    assert errno_of(union.lookup, union.root, b"n" * 300) == errno.ENAMETOOLONG


def test_a_file_that_the_data_plane_found_is_adopted_from_its_layer(union, layers):
    put(layers[1], "file", "middle")
    found = (layers[1] / "file").stat()
    node = resolve(union, "file")
    ino, birth, kind = IDENTITY.unpack(node.top.node.identity)
    assert ino == found.st_ino
    adopted = union.adopt(union.root, b"file", Identity(found.st_dev, ino, birth, kind, 1))
    assert adopted.identity == node.identity


def test_an_image_may_hide_all_layers_below_at_the_root(layers):
    put(layers[1], ".wh..wh..opq")
    for layer in layers:
        put(layer, layer.name)
    tree = Union(layers)
    assert names(tree) == ["middle", "top"]
    assert len(tree.lease_layers()) == 2
    tree.close()
