"""A filter shows what its patterns say, of each kind of tree."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from typing import Any

import pytest
import trio
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.tree.filter_model import GLOBS, NAMES, RENAMES, filtered, random_tree, write_tree
from zcfuse.tree import Dir, File, Filter, Mirror, Node, Symlink, Tree, Union, Who, Zeros


def listed(tree: Tree, node: Node) -> dict[str, Any]:
    listing = tree.listing(node)
    found = {}
    for _, name, below, attributes in listing.entries(0):
        if name not in (b".", b".."):
            assert os.fsdecode(name) not in found
            is_directory = stat.S_ISDIR(attributes.mode)
            found[os.fsdecode(name)] = listed(tree, below) if is_directory else attributes.size
    listing.close()
    return found


def looked_up(tree: Tree, node: Node, names: set[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        try:
            below, attributes = tree.lookup(node, os.fsencode(name))
        except FileNotFoundError:
            continue
        is_directory = stat.S_ISDIR(attributes.mode)
        found[name] = looked_up(tree, below, names) if is_directory else attributes.size
    return found


@settings(deadline=None)
@given(random_tree(), GLOBS, GLOBS, RENAMES)
def test_a_filter_shows_what_the_model_shows(
    tree: dict[str, Any], hide: list[str], show: list[str], rename: dict[str, str]
) -> None:
    expected = filtered(tree, hide, show, rename)
    where = tempfile.mkdtemp()
    try:
        write_tree(f"{where}/tree", tree)
        shown = Filter(f"{where}/tree", hide=hide, show=show, rename=rename)
        assert listed(shown, shown.root) == expected
        names = {name for old in NAMES for name in (old, f"x{old}", f"{old}b", f"{old[1:]}b")}
        names |= {"", "e", "b.txt"} | {name.removesuffix(".tmp") for name in NAMES}
        assert looked_up(shown, shown.root, names - {""}) == expected
        shown.close()
    finally:
        shutil.rmtree(where)


@given(st.text(max_size=8), st.text(min_size=1, max_size=8))
def test_any_text_is_a_pattern_or_refused(pattern: str, name: str) -> None:
    encoded = name.encode(errors="replace").replace(b"/", b"")
    try:
        shown = Filter(Dir(), hide=[pattern.encode(errors="replace")])
    except ValueError:
        shown = Filter(Dir())
    assume(encoded not in (b"", b".", b".."))
    with pytest.raises(FileNotFoundError):
        shown.lookup(shown.root, encoded)


@pytest.mark.parametrize("pattern", ["", "/", "a//b", "..", "a/./b", "[a", "a\\", "[]", "a\0b"])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Filter(Dir(), hide=[pattern])


@pytest.mark.parametrize(
    "rename", [{"a*": "b"}, {"a": "b*"}, {"a**": "b*"}, {"a": ".."}, {"a/b": "c"}, {"a": ""}]
)
def test_a_new_name_that_is_none_is_refused(rename: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Filter(Dir(), rename=rename)


def test_one_text_for_a_list_of_patterns_is_refused() -> None:
    with pytest.raises(TypeError, match="hide: give a list"):
        Filter(Dir(), hide="*.tmp")
    with pytest.raises(TypeError, match="show: a pattern is a str or bytes"):
        Filter(Dir(), show=[3])  # type: ignore[list-item]


def test_trees_of_each_kind_are_filtered(tmp_path: Any) -> None:
    write_tree(f"{tmp_path}/top", {"a": 1, "a.tmp": 1, "sub": {"b.tmp": 1, "b": 2}})
    write_tree(f"{tmp_path}/low", {"c.tmp": 1, "sub": {"c": 3}})
    mirror = Mirror(f"{tmp_path}/top")
    union = Union([f"{tmp_path}/top", f"{tmp_path}/low"])
    entries = Dir({"x.tmp": Zeros(1), "x": Zeros(2), "mirror": mirror, "link": Symlink("a.tmp")})
    for tree, expected in (
        (mirror, {"a": 1, "sub": {"b": 2}}),
        (union, {"a": 1, "sub": {"b": 2, "c": 3}}),
        (entries, {"x": 2, "mirror": {"a": 1, "sub": {"b": 2}}, "link": 5}),
        (Filter(mirror, hide=["a"]), {"sub": {"b": 2}}),
    ):
        shown = Filter(tree, hide=["*.tmp"])
        assert listed(shown, shown.root) == expected
    union.close()
    mirror.close()


def test_a_policy_beneath_is_asked_for_the_old_name() -> None:
    asked: list[tuple[str, int]] = []

    class Policy(Dir):
        async def lookup(self, name: str, who: Who) -> Zeros | None:
            asked.append((name, who.uid))
            return Zeros(3) if name == "a.jpeg" else None

        async def list(self, who: Who) -> list[str]:
            return ["a.jpeg", "b.tmp"]

    shown = Filter(Policy(), hide=["*.tmp"], rename={"*.jpeg": "*.jpg"})

    async def run() -> None:
        answer = shown.lookup_for(shown.root, b"a.jpg", Who(7, 8, 9))
        _, attributes = await answer  # type: ignore[misc]
        assert attributes.size == 3
        assert asked == [("a.jpg", 7), ("a.jpeg", 7)]
        listing = await shown.listing_for(shown.root, Who(7, 8, 9))  # type: ignore[misc]
        assert [name for _, name, *_ in listing.entries(0)] == [b".", b"..", b"a.jpg"]
        asked.clear()
        with pytest.raises(FileNotFoundError):
            await shown.lookup_for(shown.root, b"b.tmp", Who(7, 8, 9))  # type: ignore[misc]

    trio.run(run)
    assert asked == []


def test_files_and_links_are_those_beneath(tmp_path: Any) -> None:
    write_tree(f"{tmp_path}/tree", {"a": 5, "sub": {}})
    os.symlink("a", f"{tmp_path}/tree/link")
    os.setxattr(f"{tmp_path}/tree/a", "user.colour", b"red")
    shown = Filter(f"{tmp_path}/tree", rename={"a": "b"})
    node, attributes = shown.lookup(shown.root, b"b")
    file = shown.open(node)
    assert file.pread(10, 0) == b"x" * attributes.size == b"x" * 5
    file.close()
    assert shown.getxattr(node, b"user.colour") == b"red"
    assert shown.listxattr(node) == [b"user.colour"]
    link, _ = shown.lookup(shown.root, b"link")
    assert shown.readlink(link) == b"a"
    directory, attributes = shown.lookup(shown.root, b"sub")
    assert attributes.nlink == 1
    assert shown.lookup(directory, b"..")[0] is shown.root
    assert shown.access(node, os.R_OK, os.geteuid(), [])
    # Other processes change what is free.
    beneath, whole = shown.statfs(), os.statvfs(tmp_path)
    assert (beneath.blocks, beneath.bsize) == (whole.f_blocks, whole.f_bsize)
    assert (beneath.files, beneath.namemax) == (whole.f_files, whole.f_namemax)
    assert shown.describe(node).endswith(", filtered")
    shown.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        shown.lookup(shown.root, b"b")


def test_a_change_is_told_under_both_names() -> None:
    entries = Dir({"a.jpeg": File("/etc/hostname")})
    shown = Filter(entries, rename={"*.jpeg": "*.jpg"})
    told = set()
    shown.watch(lambda node, name: told.add((node.identity, name)))
    entries.remove("a.jpeg")
    assert told == {(shown.root.identity, b"a.jpeg"), (shown.root.identity, b"a.jpg")}
    shown.watch(None)
    entries.add("b", Zeros(1))
    assert len(told) == 2
