import pytest

from tests.tree.archive.support import directory, member, opened, paths, reasons, symlink, write

UP = "its name has '..' in it"
LONG = "a part of its name is longer than 255 bytes"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/abs/a", {b"abs", b"abs/a"}),
        ("//a", {b"a"}),
        ("./a", {b"a"}),
        ("a//b", {b"a", b"a/b"}),
        ("a/./b", {b"a", b"a/b"}),
        ("a/.b", {b"a", b"a/.b"}),
        ("...", {b"..."}),
        ("a\nb", {b"a\nb"}),
        ("\udcff\udcfe", {b"\xff\xfe"}),
        ("\udced\udca0\udc80", {b"\xed\xa0\x80"}),
        ("n" * 255, {b"n" * 255}),
        ("\\a\\b", {b"\\a\\b"}),
    ],
)
def test_a_name_is_taken_below_the_root(tmp_path, name, shown):
    index = opened(write(tmp_path / "a.tar", member(name)))
    assert paths(index) == shown
    assert index.notes == ()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("..", UP),
        ("../a", UP),
        ("a/../../b", UP),
        ("a/../b", UP),
        ("/../a", UP),
        ("a/..", UP),
        ("n" * 256, LONG),
        ("n" * 256 + "/a", LONG),
        (".", "its name is that of the archive's root"),
        ("", "its name is that of the archive's root"),
        ("/", None),
    ],
)
def test_a_name_that_cannot_be_shown_is_left_out_and_counted(tmp_path, name, reason):
    index = opened(write(tmp_path / "a.tar", member(name), member("good")))
    assert paths(index) == {b"good"}
    assert reasons(index) == ({reason: 1} if reason else {})


def test_a_directory_whose_name_escapes_is_left_out(tmp_path):
    index = opened(write(tmp_path / "a.tar", directory("../d"), directory("d/../..")))
    assert (paths(index), reasons(index)) == (set(), {UP: 2})


def test_a_symlink_keeps_its_target_wherever_it_leads(tmp_path):
    members = [symlink("up", "../../etc/passwd"), symlink("abs", "/etc/passwd")]
    index = opened(write(tmp_path / "a.tar", *members))
    assert index.readlink(index.lookup(0, b"up")) == b"../../etc/passwd"
    assert index.readlink(index.lookup(0, b"abs")) == b"/etc/passwd"


def test_members_below_a_symlink_never_follow_it(tmp_path):
    index = opened(write(tmp_path / "a.tar", symlink("etc", "/etc"), member("etc/passwd")))
    assert paths(index) == {b"etc", b"etc/passwd"}


def test_a_name_with_a_nul_is_left_out(tmp_path):
    header, _ = member("ok")
    header.pax_headers = {"path": "a\0b"}
    index = opened(write(tmp_path / "a.tar", (header, b"")))
    assert (paths(index), reasons(index)) == (set(), {"its name has a NUL in it": 1})


def test_a_note_has_the_first_name_it_is_about(tmp_path):
    index = opened(write(tmp_path / "a.tar", member("../1"), member("../2"), member("x/../3")))
    ((reason, count, example),) = [(n.reason, n.count, n.example) for n in index.notes]
    assert (reason, count, example) == (UP, 3, b"../1")


def test_a_name_may_have_many_parts(tmp_path):
    name = "/".join(["d"] * 3000)
    index = opened(write(tmp_path / "a.tar", member(name)))
    node = index.root
    for _ in range(3000):
        node = index.lookup(node, b"d")
    assert index.member(node).nlink == 1


@pytest.mark.parametrize("name", ["BZh", "PK\3\4", "\x1f\udc8b", "LZIP"])
def test_a_first_name_that_looks_like_another_format_does_not_matter(tmp_path, name):
    index = opened(write(tmp_path / "a.tar", member(name)))
    assert paths(index) == {name.encode("utf-8", "surrogateescape")}
