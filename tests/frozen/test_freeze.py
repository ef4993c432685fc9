"""Freezing: an image shows its tree and names what it cannot store."""

import errno
import fcntl
import hashlib
import os
import signal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.frozen.conftest import erofs_utils, hard_tree, seen, seen_in
from tests.support import requires
from zcfuse.frozen import CheckSummary, FreezeError, FrozenImage, FrozenTree, check
from zcfuse.tree import (
    Bytes,
    Computed,
    Concat,
    Dir,
    File,
    Filter,
    Mirror,
    Slice,
    Symlink,
    Union,
    VirtualTree,
    Zeros,
)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(bytes(range(1, 252)) * 2000)
    return str(path)


def changed(image):
    opened, summary = FrozenImage(image), CheckSummary()
    try:
        return {one.path: one.reason for one in check(opened, summary)}, summary
    finally:
        opened.close()


@requires("xattr")
def test_an_image_shows_what_is_hard_to_keep_as_the_directory_has_it(tmp_path, frozen):
    root = os.fsencode(tmp_path / "hard")
    os.mkdir(root)
    hard_tree(root)
    os.truncate(os.path.join(root, b"huge"), 100)  # the dump reads it
    tree = Mirror(root)
    image, summary = frozen(tree, roots=[root])
    assert seen_in(image) == seen(tree)
    assert (summary.left_out, summary.about.fuse_only) == ([], [])


def test_whole_files_of_directories_are_frozen_without_opening_them(tmp_path, frozen):
    layers = [tmp_path / "upper", tmp_path / "lower"]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name).write_text(layer.name)
    held = os.open(layers[1] / "lower", os.O_RDWR)
    ignored = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # an open by anyone would break it
        for tree in (Mirror(layers[1]), Union(layers), VirtualTree(Dir({"m": Mirror(layers[1])}))):
            image, _ = frozen(tree)
            assert fcntl.fcntl(held, fcntl.F_GETLEASE) == fcntl.F_WRLCK
        with pytest.raises(BlockingIOError):
            os.open(layers[1] / "lower", os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(held)
        signal.signal(signal.SIGIO, ignored)
    assert seen_in(image)[b"m/lower"]["size"] == 5


def test_a_mirror_that_opens_other_files_is_frozen_with_these(tmp_path, frozen):
    class Other(Mirror):
        def open(self, node):
            return tree.open(shown)

    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_text("source")
    other = tmp_path / "other"
    other.write_text("others")
    tree = VirtualTree(Dir({"f": File(other)}))
    shown, _ = tree.lookup(tree.root, b"f")
    image, _ = frozen(Other(tmp_path / "source"))
    opened = FrozenTree(image)
    assert opened.open(opened.lookup(opened.root, b"f")[0]).pread(9, 0) == b"others"
    opened.close()


@requires("xattr", "fsck.erofs")
def test_the_checker_of_erofs_finds_no_fault_in_an_image(tmp_path, frozen):
    root = os.fsencode(tmp_path / "hard")
    os.mkdir(root)
    hard_tree(root)
    image, summary = frozen(Mirror(root))
    erofs_utils(image, "fsck.erofs")
    names_of_files = summary.about.files + 3  # one of them has three more links
    told = erofs_utils(image, "dump.erofs", "-S")
    assert f"regular file count:\t\t{names_of_files}" in told


@requires("fsck.erofs")
def test_a_directory_of_many_names_finds_each_of_them(tmp_path, frozen):
    names = [b"%06d-%s" % (number, b"n" * (number % 200)) for number in range(3000)]
    tree = Dir({os.fsdecode(name): Symlink(b"x") for name in names})
    image, _ = frozen(tree)
    shown = FrozenTree(image)
    listed = [(offset, name) for offset, name, _, _ in shown.listing(shown.root).entries(0)]
    assert [name for _, name in listed] == [b".", b"..", *sorted(names)]
    for offset, name in listed[:: len(listed) // 7]:
        following = next(shown.listing(shown.root).entries(offset), None)
        assert following is None or following[1] == listed[listed.index((offset, name)) + 1][1]
    for name in names[::50]:
        assert shown.readlink(shown.lookup(shown.root, name)[0]) == b"x"
    shown.close()
    erofs_utils(image, "fsck.erofs")


def test_files_of_parts_show_the_bytes_of_the_parts(shard, frozen):
    tree = Dir(
        {
            "whole": File(shard),
            "aligned": Slice(shard, 512, 70_000),
            "to the end": Slice(shard, 512 * 3),
            "unaligned": Slice(shard, 3, 70_000),
            "small": Slice(shard, 3, 70),
            "bytes": Bytes(b"b" * 200_000),
            "nothing": Bytes(b""),
            "hole": Zeros(100_000),
            "joined": Concat([Slice(shard, 512, 65_536), Zeros(65_536), Bytes(b"q" * 4_000)]),
            "joined anyhow": Concat([Slice(shard, 1, 65_537), Slice(shard, 7, 100_000)]),
            "d": Dir({"below": Slice(shard, 1024, 512), "link": Symlink(b"../whole")}),
        }
    )
    shown = VirtualTree(tree)
    image, summary = frozen(shown)
    assert seen_in(image) == seen(shown)
    (reason,) = summary.about.fuse_only
    assert reason.startswith("2 such as 'unaligned'"), reason
    assert [os.fsdecode(device.path) for device in summary.about.devices] == [shard]


parts = st.one_of(
    st.tuples(st.sampled_from([0, 512, 4096, 5120, 77]), st.sampled_from([512, 8192, 66_000])),
    st.binary(min_size=1, max_size=50),
    st.sampled_from([512, 4096, 70_000]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(files=st.lists(st.lists(parts, min_size=1, max_size=3), min_size=1, max_size=4))
def test_any_files_of_parts_show_the_bytes_of_the_parts(files, shard, frozen):
    def made(part):
        if isinstance(part, tuple):
            return Slice(shard, *part)
        return Bytes(part) if isinstance(part, bytes) else Zeros(part)

    tree = VirtualTree(Dir({str(name): Concat(map(made, file)) for name, file in enumerate(files)}))
    image, _ = frozen(tree)
    assert seen_in(image) == seen(tree)
    os.unlink(image)


def test_small_files_are_copied_if_asked_and_outlive_their_backing_files(tmp_path, frozen):
    source = tmp_path / "source"
    source.mkdir()
    for size in (1, 4096, 70_000, 70_001):
        (source / str(size)).write_bytes(os.urandom(size))
    os.link(source / "4096", source / "link")
    shown = seen(Mirror(source))
    image, summary = frozen(Mirror(source), copy_up_to=70_000, verify=True, digest=True)
    assert summary.about.copied_bytes == 1 + 4096 + 70_000
    erofs_utils(image, "fsck.erofs")
    for name in ("1", "4096", "70000"):
        (source / name).write_bytes(b"changed")
    (source / "70001").write_bytes(b"changed")
    assert len(changed(image)[0]) == 1
    (source / "70001").unlink()
    tree = FrozenTree(image)
    for name in (b"1", b"4096", b"70000", b"link"):
        file = tree.open(tree.lookup(tree.root, name)[0])
        assert hashlib.sha256(file.pread(1 << 20, 0)).hexdigest() in str(shown[name])
        file.close()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        tree.open(tree.lookup(tree.root, b"70001")[0])
    tree.close()


class _Written(Mirror):
    """A directory whose files are written to after the walk has opened them."""

    def listxattr(self, node):
        path = self.real_path(node)
        if path and os.path.isfile(path):
            with open(path, "r+b") as file:
                file.write(b"new")
        return super().listxattr(node)


@pytest.mark.parametrize("size", [100, 70_000])
def test_a_file_that_changes_while_it_is_copied_is_refused_and_left_out_on_request(
    size, tmp_path, frozen
):
    (tmp_path / "source").mkdir()
    path = tmp_path / "source" / "file"
    path.write_bytes(bytes(size))
    os.utime(path, ns=(0, 0))
    with pytest.raises(FreezeError, match="'file': it changed while it was frozen"):
        frozen(_Written(tmp_path / "source"), copy_up_to=1 << 20)
    os.utime(path, ns=(0, 0))
    image, summary = frozen(_Written(tmp_path / "source"), copy_up_to=1 << 20, leave_out=True)
    assert [(one.count, one.example) for one in summary.left_out] == [(1, b"file")]
    assert b"file" not in seen_in(image)


def test_a_frozen_union_is_what_the_union_shows(tmp_path, frozen):
    layers = [tmp_path / "upper", tmp_path / "lower"]
    for number, layer in enumerate(layers):
        (layer / "d").mkdir(parents=True)
        (layer / "d" / f"only in {number}").write_text(f"{number}")
        (layer / "both").write_text(f"layer {number}")
    (layers[1] / "hidden").write_text("")
    (layers[0] / ".wh.hidden").write_text("")
    tree = Union(layers)
    image, summary = frozen(tree, roots=[os.fsencode(tmp_path)])
    shown, expected = seen_in(image), seen(tree)
    assert shown == expected
    assert summary.about.roots == [os.fsencode(tmp_path)]


def test_what_a_program_answers_is_refused_by_name_and_left_out_on_request(frozen):
    async def read(offset, size):
        return bytes(size)

    class Asks(Dir):
        dynamic = True

        async def lookup(self, name, who):
            return None

        async def list(self, who):
            return []

    tree = Dir({"computed": Computed(5, read), "kept": Bytes(b"k"), "asks": Asks()})
    with pytest.raises(FreezeError, match=r"2 entries cannot be frozen"):
        frozen(tree)
    image, summary = frozen(tree, leave_out=True)
    assert sorted(left.example for left in summary.left_out) == [b"asks", b"computed"]
    assert set(seen_in(image)) == {b"", b"kept", b"missing"}


def test_files_that_are_missing_are_refused_by_name_and_left_out_on_request(tmp_path, frozen):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there").write_text("there")
    files = {name: File(tmp_path / name) for name in ("gone", "loop", "there")}
    tree = Dir({**files, "d": Dir({"gone": File(tmp_path / "gone"), "in": File("/proc/stat/in")})})
    with pytest.raises(FreezeError, match=r"^4 entries cannot be frozen, the first is 'd/gone'"):
        frozen(tree)
    image, summary = frozen(tree, leave_out=True)
    assert [(left.reason, left.count, left.example) for left in summary.left_out] == [
        (f"it cannot be read: {os.strerror(number)}", count, example)
        for number, count, example in (
            (errno.ENOENT, 2, b"d/gone"),
            (errno.ENOTDIR, 1, b"d/in"),
            (errno.ELOOP, 1, b"loop"),
        )
    ]
    assert set(seen_in(image)) == {b"", b"there", b"d", b"missing", b"d/missing"}


def test_of_the_files_that_a_layer_lacks_those_count_that_no_layer_hides_or_shows(tmp_path, frozen):
    gone = File(tmp_path / "gone")
    lower = Dir({"shown": gone, "hidden": gone, "hidden by itself": gone, "lost": gone})
    lower.add(".wh.hidden by itself", Bytes(b""))
    tree = Union([Dir({"shown": Bytes(b"s"), ".wh.hidden": Bytes(b"")}), lower])
    image, summary = frozen(tree, leave_out=True)
    tree.close()
    (left,) = summary.left_out
    assert (left.count, left.example) == (2, b"hidden by itself")
    assert set(seen_in(image)) == {b"", b"shown", b"missing"}


def test_a_missing_file_that_a_filter_hides_does_not_count(tmp_path, frozen):
    gone = File(tmp_path / "gone")
    tree = Dir({"d": Filter(Dir({"a.tmp": gone, "a.txt": gone}), hide=["*.tmp"])})
    _, summary = frozen(tree, leave_out=True)
    assert [(left.count, left.example) for left in summary.left_out] == [(1, b"d/a.txt")]


def test_a_file_of_which_a_later_filesystem_has_the_path_too_is_for_fuse(tmp_path, frozen):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name)
    tree = Dir({name: File(tmp_path / name / "f") for name in ("one", "two")})
    roots = [os.fsencode(tmp_path / name) for name in ("one", "two")]
    image, summary = frozen(tree, roots=roots)
    assert seen_in(image)[b"two"]["size"] == 3
    assert "exists in several" in summary.about.fuse_only[0]
    shown = FrozenTree(image)
    assert shown.open(shown.lookup(shown.root, b"two")[0]).pread(9, 0) == b"two"
    shown.close()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, {"longer"}),
        ({"verify": True}, {"longer", "touched", "other bytes"}),
        ({"verify": True, "digest": True}, {"longer", "touched", "other bytes", "same time"}),
    ],
)
def test_check_lists_the_files_that_have_changed(options, found, tmp_path, frozen):
    source = tmp_path / "source"
    source.mkdir()
    names = ("longer", "touched", "other bytes", "same time", "same")
    for name in names:
        (source / name).write_text("before")
        os.utime(source / name, ns=(10**18, 10**18))
    image, _ = frozen(Mirror(source), **options)
    assert changed(image)[0] == {}
    (source / "longer").write_text("after it")
    os.utime(source / "longer", ns=(10**18, 10**18))
    os.utime(source / "touched")
    (source / "other bytes").write_text("change")
    (source / "same time").write_text("change")
    os.utime(source / "same time", ns=(10**18, 10**18))
    told, summary = changed(image)
    assert {os.path.basename(os.fsdecode(path)) for path in told} == found
    assert summary.compared == len(names)


def test_a_backing_file_of_another_size_is_stale_and_one_that_is_gone_an_error(tmp_path, frozen):
    source = tmp_path / "source"
    source.mkdir()
    (source / "longer").write_text("1")
    (source / "gone").write_text("1")
    image, _ = frozen(Mirror(source))
    (source / "longer").write_text("12")
    (source / "gone").unlink()
    tree = FrozenTree(image)
    for name, number in ((b"longer", errno.ESTALE), (b"gone", errno.EIO)):
        with pytest.raises(OSError, match=os.strerror(number)):
            tree.open(tree.lookup(tree.root, name)[0])
    tree.close()
