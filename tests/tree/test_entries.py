"""Entries as values: refused arguments, and equality of entries."""

import gc
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcfuse.tree import Bytes, Computed, Concat, Dir, File, Mirror, Slice, Symlink, Zeros


async def read(offset, size):
    return bytes(size)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "nul\0", "x" * 256, "ä" * 128, b"/"])
def test_a_name_that_no_directory_can_hold_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        Dir({name: Bytes(b"")})
    with pytest.raises(ValueError, match="name"):
        Dir().add(name, Bytes(b""))


def test_names_are_text_or_bytes_and_the_same_either_way():
    tree = Dir({"ä": Bytes(b"1"), b"\xff": Bytes(b"2")})
    assert tree["ä".encode()] is tree["ä"]
    assert list(tree) == ["ä", os.fsdecode(b"\xff")]
    assert "ä" in tree
    assert "b" not in tree


@pytest.mark.parametrize("entry", [None, 3, dict])
def test_what_is_no_entry_is_refused_at_once_with_its_name(entry):
    with pytest.raises(TypeError, match="'name': a directory holds paths and entries"):
        Dir({"name": entry})
    with pytest.raises(TypeError, match="'a/name': a directory holds"):
        Dir.from_paths({"a/name": entry})


@pytest.mark.parametrize("path", ["/path", b"/path", Path("/path")])
def test_a_path_stands_for_its_file(path):
    tree = Dir({"one": path})
    tree.add("two", path)
    tree.replace("two", path)
    assert tree["one"].key() == tree["two"].key() == File("/path").key()


def test_directories_are_made_for_paths():
    tree = Dir.from_paths(
        {"a/b/1": "/x", "a/b/2": Bytes(b"2"), "a/own": Dir({"x": "/y"}), "top": "/z"}
    )
    assert list(tree) == ["a", "top"]
    assert list(tree["a"]) == ["b", "own"]
    assert list(tree["a"]["b"]) == ["1", "2"]
    assert tree["a"]["b"]["1"].key() == File("/x").key()
    assert tree.directories() == 1


def test_many_paths_keep_no_object_for_each():
    number = 5000
    tracemalloc.start()
    try:
        tree = Dir.from_paths({f"d/{n:09}.jpg": f"/data/{n:09}.jpg" for n in range(number)})
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(tree["d"]) == number
    assert size / number < len(b"000000001.jpg") + len(b"000000001.jpg") + 10
    assert tree["d"].remove("000000001.jpg").key() == File("/data/000000001.jpg").key()
    assert tree["d"].replace("000000002.jpg", "/y").key() == File("/data/000000002.jpg").key()


NAMES = [b"%d" % number for number in range(99)]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "replace", "remove", "look"]),
        st.sampled_from([*NAMES, b"a", b"10\x01", b"\xff"]),
        st.sampled_from(["/data/x", "/other", Bytes(b"made")]),
    )
)


@given(CHANGES)
def test_a_directory_of_many_paths_changes_as_a_small_one(changes):
    paths = {b"%d" % number: f"/data/{number * 7}" for number in range(40, 80)}
    many = Dir.from_paths({f"d/{name.decode()}": path for name, path in paths.items()})["d"]
    few = Dir(paths)
    for change, name, path in changes:
        arguments = (name, path) if change in ("add", "replace") else (name,)
        found = []
        for directory in (many, few):
            try:
                if change == "look":
                    found.append(repr(directory.get(name)))
                else:
                    found.append(repr(getattr(directory, change)(*arguments)))
            except OSError as error:
                found.append(type(error))
        assert found[0] == found[1]
        assert len(many) == len(few)
        assert (name in many) == (name in few)
    assert sorted(many.names()) == sorted(few.names())
    assert [repr(many[name]) for name in few] == [repr(few[name]) for name in few]


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ({"a": "/x", "a/b": "/y"}, "'a/b' leads through 'a', an entry"),
        ({"a/b": "/x", "a": "/y"}, "'a' is a directory and an entry"),
        ({"a": Dir(), "a/b": "/y"}, "'a/b' leads through 'a', an entry"),
        ({"/a": "/x"}, "from the top of the tree"),
        ({"a/../b": "/x"}, "not a name"),
        ({"": "/x"}, "not a name"),
    ],
)
def test_paths_that_make_no_tree_are_refused(paths, words):
    with pytest.raises(ValueError, match=words):
        Dir.from_paths(paths)


def test_an_entry_says_what_it_is():
    entries = [File("/a"), Slice("/a", 1, 2), Zeros(3), Symlink("x"), Dir({"a": "/a", "b": "/b"})]
    assert [repr(entry) for entry in entries] == [
        "<File /a>",
        "<Slice: 2 bytes from byte 1 of File /a>",
        "<Zeros: a hole of 3 bytes>",
        "<Symlink to x>",
        "<Dir of 2 names>",
    ]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Slice("/f", -1, 3), ValueError, "offset=-1"),
        (lambda: Slice("/f", 0, -1), ValueError, "length=-1"),
        (lambda: Slice("/f", 0, 2**63), ValueError, "length="),
        (lambda: Slice("/f", 1.5, 3), TypeError, "offset must be an int"),
        (lambda: Slice(Slice("/f", 2**62, 2**62), 2**62 - 1, None), None, ""),
        (lambda: Slice(Dir(), 0, 3), TypeError, "of: give a path"),
        (lambda: Slice(Computed(3, read), 0, 3, path="pool"), ValueError, "path='pool'"),
        (lambda: Concat([Computed(3, read)], path="pool"), ValueError, "path='pool'"),
        (lambda: Concat("/path"), TypeError, "parts must be a list"),
        (lambda: Concat([3]), TypeError, "parts: give a path"),
        (lambda: Zeros(True), TypeError, "length must be an int"),
        (lambda: Zeros(-1), ValueError, "length=-1"),
        (lambda: File(""), ValueError, "not a path"),
        (lambda: File("a\0b"), ValueError, "not a path"),
        (lambda: File("/f", path="fast"), ValueError, "path='fast': choose one of"),
        (lambda: File("/f", mode=0o10000), ValueError, "mode=4096"),
        (lambda: File("/f", uid=-1), ValueError, "uid=-1"),
        (lambda: Bytes("text"), TypeError, "encode it"),
        (lambda: Bytes(3), TypeError, "data must be bytes"),
        (lambda: Computed(3, None), TypeError, "async function"),
        (lambda: Computed(3, read, path="pool"), ValueError, "path='pool': .* by upcall"),
        (lambda: Symlink(""), ValueError, "not a target"),
        (lambda: Symlink("x" * 4096), ValueError, "not a target"),
        (lambda: Dir(owner=3), TypeError, "owner"),
    ],
)
def test_wrong_values_are_refused_when_an_entry_is_made(make, error, words):
    if error is None:
        make()
        return
    with pytest.raises(error, match=words):
        make()


def test_a_relative_path_is_taken_from_the_working_directory_of_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert File("name").file == os.fsencode(tmp_path / "name")
    assert File(tmp_path / "name").key() == File("name").key()


def test_slices_of_slices_and_concats_of_concats_are_flat():
    inner = Slice(Slice("/f", 100, 50), 10, 20)
    assert (inner.of.file, inner.offset, inner.length) == (b"/f", 110, 20)
    rest = Slice(Slice("/f", 100, 50), 10)
    assert (rest.offset, rest.length) == (110, 40)
    assert (Slice(Slice("/f", 5), 6).offset, Slice(Slice("/f", 5), 6).length) == (11, None)
    # A range beyond the inner slice must not show the file's following bytes.
    assert isinstance(Slice(Slice("/f", 100, 50), 10, 60).of, Slice)
    assert len(Concat(["/a", Concat([Zeros(1), Concat(["/b"])])]).parts) == 3


def test_equal_values_are_one_file_and_others_are_not():
    assert File("/f").key() == File("/f").key() != File("/g").key()
    assert File("/f", mode=0o600).key() != File("/f").key()
    assert File("/f", path="splice").key() != File("/f", path="pool").key()
    assert Bytes(b"1").key() == Bytes(bytearray(b"1")).key() != Bytes(b"2").key()
    assert Dir().key() != Dir().key()
    assert Dir(key="a").key() == Dir(key="a").key() != Dir(key="b").key()
    assert Computed(3, read).key() == Computed(3, read).key()


def test_a_directory_is_changed_by_name():
    old, new = Bytes(b"old"), Bytes(b"new")
    tree = Dir({"name": old})
    with pytest.raises(FileExistsError):
        tree.add("name", new)
    assert tree.replace("name", new) is old
    assert tree.remove("name") is new
    with pytest.raises(FileNotFoundError):
        tree.remove("name")
    assert tree.replace("name", old) is None
    assert len(tree) == 1


def test_a_change_that_is_refused_changes_nothing():
    tree = Dir({"name": Bytes(b"old")})
    with pytest.raises(TypeError):
        tree.replace("name", 3)
    assert list(tree) == ["name"]


def test_a_directory_counts_what_is_a_directory(tmp_path):
    tree = Dir({"a": Dir(), "b": Bytes(b""), "m": Mirror(tmp_path)})
    assert tree.directories() == 2
    tree.replace("a", Bytes(b""))
    tree.remove("m")
    assert tree.directories() == 0


def test_what_is_asked_for_each_time_is_volatile_unless_it_says_otherwise():
    class Plain(Dir):
        pass

    class Asked(Plain):
        async def lookup(self, name, who):
            return None

    class Kept(Asked):
        volatile = False

    class KeptToo(Kept):
        async def list(self, who):
            return []

    class OnDemand(Dir):
        def get(self, name):
            return None

    found = [(one.dynamic, one.volatile) for one in (Dir, Plain, Asked, Kept, KeptToo, OnDemand)]
    assert found == [
        (False, False),
        (False, False),
        (True, True),
        (True, False),
        (True, False),
        (False, False),
    ]
