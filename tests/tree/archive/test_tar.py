import os
import subprocess
import tarfile

import pytest

from tests.tree.archive.support import (
    BLOCK,
    directory,
    extracted,
    hard_link,
    held,
    make_holes,
    member,
    nodes,
    opened,
    paths,
    reasons,
    shown,
    symlink,
    tar,
    write,
)
from zcfuse.tree.archive import Kind

FORMATS = ["v7", "ustar", "gnu", "oldgnu", "pax"]
PYTHON_FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


@pytest.fixture
def tree(tmp_path):
    """A directory with one entry of each kind that tar formats can hold."""
    root = tmp_path / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o700)
    (root / "a" / "small").write_bytes(b"small")
    (root / "a" / "none").write_bytes(b"")
    (root / "a" / "b" / "large").write_bytes(os.urandom(70_001))
    os.link(root / "a" / "small", root / "a" / "b" / "linked")
    os.symlink("../a/small", root / "a" / "soft")
    os.symlink("/outside", root / "a" / "absolute")
    (root / "a" / "small").chmod(0o4751)
    os.mkdir(os.fsencode(root) + b"/not utf-8 \xff\xfe")
    return root


def at(index, path):
    return dict(nodes(index))[path]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_gnu_tar_packs_is_shown_as_it_unpacks_it(tmp_path, tree, kind):
    tar(tmp_path / "a.tar", tree, f"--format={kind}")
    assert shown(opened(tmp_path / "a.tar")) == extracted(tmp_path / "a.tar", tmp_path / "x")


@pytest.mark.parametrize("kind", PYTHON_FORMATS)
def test_what_tarfile_packs_is_shown_as_gnu_tar_unpacks_it(tmp_path, tree, kind):
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
        archive.add(tree, ".")
    assert shown(opened(tmp_path / "a.tar")) == extracted(tmp_path / "a.tar", tmp_path / "x")


@pytest.mark.parametrize("kind", ["gnu", "oldgnu", "pax"])
def test_long_names_and_targets_are_shown_in_full(tmp_path, tree, kind):
    deep = tree.joinpath(*["d" * 200] * 4)
    deep.mkdir(parents=True)
    (deep / ("n" * 255)).write_bytes(b"deep")
    os.symlink("t" * 4000, deep / "soft")
    os.link(deep / ("n" * 255), tree / "hard")
    tar(tmp_path / "a.tar", tree, f"--format={kind}")
    assert shown(opened(tmp_path / "a.tar")) == held(tree)


SPARSE = [
    ["--format=gnu"],
    ["--format=oldgnu"],
    ["--format=pax", "--sparse-version=0.0"],
    ["--format=pax", "--sparse-version=0.1"],
    ["--format=pax", "--sparse-version=1.0"],
]


@pytest.mark.parametrize("options", SPARSE, ids=" ".join)
@pytest.mark.parametrize("detection", ["seek", "raw"])
def test_sparse_members_have_their_bytes_and_their_holes(tmp_path, tree, options, detection):
    make_holes(tree / "few", [0, 3], 10 * BLOCK + 17)
    make_holes(tree / "many", range(0, 200, 2), 200 * BLOCK)
    make_holes(tree / "hole", [], 5 * BLOCK)
    make_holes(tree / "end", [7], 8 * BLOCK)
    (tree / "odd").write_bytes(bytes(5 * BLOCK) + b"end")
    tar(tmp_path / "a.tar", tree, "--sparse", f"--hole-detection={detection}", *options)
    index = opened(tmp_path / "a.tar")
    assert shown(index) == held(tree)
    holes = [run for run in index.runs(at(index, b"many")) if run.offset is None]
    assert len(holes) == 100
    assert list(index.runs(at(index, b"hole"))) == [(None, 5 * BLOCK)] or all(
        run.offset is None for run in index.runs(at(index, b"hole"))
    )


def test_incremental_archives_have_times_where_others_have_a_prefix(tmp_path, tree):
    tar(tmp_path / "a.tar", tree, "--format=gnu", f"--listed-incremental={tmp_path / 'state'}")
    assert shown(opened(tmp_path / "a.tar"))[0].keys() == held(tree)[0].keys()


def test_times_are_kept_to_the_nanosecond(tmp_path, tree):
    os.utime(tree / "a" / "none", ns=(0, 1_234_567_890_123_456_789))
    os.utime(tree / "a" / "b", ns=(0, -1_500_000_001))
    tar(tmp_path / "a.tar", tree, "--format=pax")
    index = opened(tmp_path / "a.tar")
    assert index.member(at(index, b"a/none")).mtime_ns == 1_234_567_890_123_456_789
    assert index.member(at(index, b"a/b")).mtime_ns == -1_500_000_001


def test_owners_are_those_of_the_archive(tmp_path):
    large = member("large", uid=3_000_000, gid=2**40)
    index = opened(write(tmp_path / "a.tar", member("small", uid=12, gid=34), large))
    small, large = (index.member(at(index, name)) for name in (b"small", b"large"))
    assert (small.uid, small.gid) == (12, 34)
    assert (large.uid, large.gid) == (3_000_000, 65534)


def test_the_archives_own_root_gives_the_roots_attributes(tmp_path):
    index = opened(write(tmp_path / "a.tar", directory("./", mode=0o711, uid=5), member("./a")))
    root = index.member(index.root)
    assert (root.kind, root.mode & 0o7777, root.uid, root.nlink) == (Kind.DIRECTORY, 0o711, 5, 2)


def test_directories_that_are_not_in_the_archive_are_made(tmp_path):
    index = opened(write(tmp_path / "a.tar", member("a/b/c")))
    made = index.member(at(index, b"a/b"))
    status = os.stat(tmp_path / "a.tar")
    assert (made.mode, made.uid, made.mtime_ns) == (0o40755, status.st_uid, status.st_mtime_ns)


def test_the_last_of_several_members_of_a_name_wins(tmp_path):
    members = [member("a", data=b"1"), member("b"), member("./a", data=b"22"), symlink("b", "a")]
    path = write(tmp_path / "a.tar", *members)
    index = opened(path)
    assert shown(index) == extracted(path, tmp_path / "x")
    assert reasons(index) == {"a later member has the same name": 2}


def test_a_hard_link_has_what_its_target_had_when_it_was_made(tmp_path):
    members = [
        member("a", data=b"old"),
        hard_link("b", "a"),
        hard_link("c", "./b"),
        member("a", data=b"new"),
        hard_link("d", "a"),
        symlink("s", "a"),
        hard_link("t", "s"),
    ]
    path = write(tmp_path / "a.tar", *members)
    assert shown(opened(path)) == extracted(path, tmp_path / "x")


def test_a_hard_link_to_a_later_member_is_followed(tmp_path):
    members = [hard_link("x", "y"), hard_link("y", "z"), member("z", data=b"z")]
    seen, linked = shown(opened(write(tmp_path / "a.tar", *members)))
    assert {found.content for found in seen.values()} == {b"z"}
    assert linked == {(b"x", b"y", b"z")}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([hard_link("x", "missing")], "a hard link to a member that is not there"),
        ([hard_link("x", "no/where")], "a hard link to a member that is not there"),
        ([hard_link("x", "../x")], "a hard link to a member that is not there"),
        ([hard_link("x", "x")], "a hard link to a member that is not there"),
        ([hard_link("x", "y"), hard_link("y", "x")], "hard links that lead only to one another"),
        ([directory("d"), hard_link("x", "d")], "a hard link to a directory"),
        ([hard_link("x", ".")], "a hard link to a directory"),
    ],
)
def test_a_hard_link_that_leads_nowhere_cannot_be_read(tmp_path, members, reason):
    index = opened(write(tmp_path / "a.tar", member("good", data=b"good"), *members))
    broken = index.member(at(index, b"x"))
    assert (broken.kind, broken.reason, broken.nlink) == (Kind.UNREADABLE, reason, 1)
    with pytest.raises(OSError, match=r"\[Errno 5\]"):
        index.runs(broken.node)
    assert index.member(at(index, b"good")).size == 4


def test_devices_and_fifos_are_left_out_and_counted(tmp_path):
    kinds = [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.FIFOTYPE]
    members = [member(f"d{number}", kind) for number, kind in enumerate(kinds)]
    index = opened(write(tmp_path / "a.tar", *members, member("a")))
    assert paths(index) == {b"a"}
    assert reasons(index) == {"a character device": 1, "a block device": 1, "a FIFO": 2}


def test_a_file_gives_way_to_a_directory_with_members(tmp_path):
    for members in (
        [member("a", data=b"1"), member("a/b")],
        [member("a/b"), member("a", data=b"1")],
        [symlink("a", "/tmp"), member("a/b")],
        [hard_link("a", "a/b"), member("a/b")],
    ):
        index = opened(write(tmp_path / "a.tar", *members))
        assert paths(index) == {b"a", b"a/b"}
        assert reasons(index) == {"other members need its name for a directory": 1}


def test_of_a_file_and_an_empty_directory_the_last_wins(tmp_path):
    for members in (
        [member("a", data=b"1"), directory("a")],
        [directory("a"), member("a", data=b"1")],
        [directory("a"), member("b"), symlink("a", "b")],
    ):
        path = write(tmp_path / "a.tar", *members)
        assert shown(opened(path)) == extracted(path, tmp_path / members[-1][0].name / "x")
        subprocess.run(["rm", "-rf", tmp_path / members[-1][0].name], check=True, timeout=10)


def test_an_archive_without_members_is_an_empty_directory(tmp_path):
    index = opened(write(tmp_path / "a.tar"))
    assert (len(index), list(index.list(0)), index.container) == (0, [], "tar")


def test_one_block_of_zeros_ends_an_archive(tmp_path):
    path = write(tmp_path / "a.tar", member("a", data=b"a" * 512))
    os.truncate(path, 1024 + 512)
    assert paths(opened(path)) == {b"a"}


def test_what_follows_the_end_is_not_shown(tmp_path):
    path = write(tmp_path / "a.tar", member("a"))
    with open(path, "ab") as file:
        file.write(write(tmp_path / "b.tar", member("b")).read_bytes())
    assert paths(opened(path)) == {b"a"}


def test_lookups_in_what_is_no_directory_say_so(tmp_path):
    index = opened(write(tmp_path / "a.tar", member("a")))
    node = index.lookup(0, b"a")
    with pytest.raises(NotADirectoryError):
        index.lookup(node, b"b")
    with pytest.raises(NotADirectoryError):
        list(index.list(node))
    with pytest.raises(OSError, match=r"\[Errno 22\]"):
        index.readlink(node)


def test_a_listing_may_begin_anywhere(tmp_path):
    members = [member(f"{number:04}") for number in range(1200)]
    index = opened(write(tmp_path / "a.tar", *members))
    everything = list(index.list(0))
    assert [name for name, _ in everything] == [b"%04d" % number for number in range(1200)]
    for start in (0, 1, 511, 512, 513, 1199, 1200, 5000):
        assert list(index.list(0, start)) == everything[start:]
