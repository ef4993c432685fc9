"""A filter is answered by the data path, and shows what Python shows."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given

from tests.integration.client import Client
from tests.integration.conftest import Shows, shown_side_by_side
from tests.integration.program import Program
from tests.integration.test_random_trees import examples
from tests.support import requires
from tests.tree.filter_model import GLOBS, RENAMES, filtered, random_tree, write_tree

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

_NUMBERS: Final = itertools.count()
SEEN: Final = """
def seen(name):
    found = {}
    with os.scandir(p(name)) as entries:
        listed = sorted((os.fsdecode(e.name), e.is_dir(follow_symlinks=False)) for e in entries)
    for one, is_directory in listed:
        below = os.path.join(os.fsencode(name), os.fsencode(one))
        assert one not in found
        found[one] = seen(below) if is_directory else len(content(below))
        assert os.lstat(p(below)).st_size == found[one] or is_directory
    return found
"""


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[tuple[Program, Client]], Path]]:
    """A program by the data path, and one by Python, over the same files."""
    sources = [
        f"tree = Dir({{}})\noptions = MountOptions(cache_timeout=0, directory_lease={leased})\n"
        for leased in (True, False)
    ]
    with shown_side_by_side(tmp_path_factory, sources, SEEN) as shown:
        yield shown, tmp_path_factory.mktemp("where")


@examples(25)
@given(tree=random_tree(), hide=GLOBS, show=GLOBS, rename=RENAMES)
@example(tree={"b.tmp": 0, "b": {}}, hide=["b/"], show=[], rename={"*.tmp": "*"})
def test_the_data_path_filters_as_the_model_and_python_do(
    both: tuple[list[tuple[Program, Client]], Path],
    tree: dict[str, Any],
    hide: list[str],
    show: list[str],
    rename: dict[str, str],
) -> None:
    shown, where = both
    base = str(where / str(next(_NUMBERS)))
    write_tree(base, tree)
    patterns = f"hide={hide!r}, show={show!r}, rename={rename!r}"
    for program, client in shown:
        program.run(
            f"tree.replace('view', Filter(Mirror({base!r}), {patterns})); await served.notified()"
        )
        assert client.value("seen('view')") == filtered(tree, hide, show, rename)
        for name in ("a", "b", "a.tmp", "a.txt", "é", "xa"):
            there = name in filtered(tree, hide, show, rename)
            assert client.value(f"os.path.lexists(p('view/{name}'))") == there


@pytest.fixture
def where(tmp_path: Path) -> str:
    tree = {"a": 1, "x.tmp": 2, ".git": {"config": 3}, "sub": {"b.jpeg": 4, "y.tmp": 5, "c": 6}}
    for name in ("top", "low"):
        write_tree(f"{tmp_path}/where/{name}", tree)
    with tarfile.open(f"{tmp_path}/where/set.tar", "w") as archive:
        for name, size in (("a", 1), ("x.tmp", 2), (".git/config", 3), ("sub/b.jpeg", 4)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    return str(tmp_path / "where")


TREES: Final = {
    "mirror": "Mirror(where + '/top')",
    "union": "Union([where + '/top', where + '/low'])",
    "archive": "Archive(where + '/set.tar')",
    "directory": "Dir.from_paths({'a': Zeros(1), 'x.tmp': Zeros(2), '.git/c': Zeros(3),"
    " 'sub/b.jpeg': where + '/top/sub/b.jpeg'})",
    "filter": "Filter(Mirror(where + '/top'), hide=['sub/c'])",
    "layer": "Union([Filter(Mirror(where + '/top'), hide=['c']), where + '/low'])",
}


@pytest.mark.parametrize("kind", TREES)
def test_a_filter_of_each_native_tree_costs_no_upcall(shows: Shows, where: str, kind: str) -> None:
    program, client = shows(
        f"tree = Filter({TREES[kind]}, hide=['.git', '*.tmp'], rename={{'*.jpeg': '*.jpg'}})\n"
        "options = MountOptions(cache_timeout=60)",
        where=where,
    )
    client.value(f"exec({SEEN!r}, globals())")
    before = program.statistics()["datapath"]["upcalls"]
    expected = {"a": 1, "sub": {"b.jpg": 4, "c": 6}}
    if kind in ("archive", "directory", "filter"):
        del expected["sub"]["c"]  # type: ignore[attr-defined]
    assert client.value("seen('')") == expected
    assert client.outcome("os.stat(p('x.tmp'))") == "ENOENT"
    assert client.outcome("os.stat(p('sub/b.jpeg'))") == "ENOENT"
    assert client.outcome("os.listdir(p('.git'))") == "ENOENT"
    assert client.value("os.stat(p('sub')).st_nlink") == 1
    assert program.statistics()["datapath"]["upcalls"] == before


def test_what_python_answers_for_is_filtered_too(shows: Shows, where: str) -> None:
    source = """
async def made(offset, size):
    return b"c" * size

class Policy(Dir):
    async def lookup(self, name, who):
        return None if name.endswith(".jpg") else Bytes(name.encode())
    async def list(self, who):
        return ["x.jpeg", "y.tmp"]

entries = Dir({"computed.jpeg": Computed(5, made), "policy": Policy(), "y.tmp": Computed(1, made)})
tree = Filter(entries, hide=["*.tmp"], rename={"*.jpeg": "*.jpg"})
options = MountOptions(cache_timeout=60)
"""
    program, client = shows(source, where=where)
    assert client.value("sorted(os.listdir(p()))") == [b"computed.jpg", b"policy"]
    assert client.value("content('computed.jpg')") == b"ccccc"
    assert client.value("os.listdir(p('policy'))") == [b"x.jpg"]
    assert client.value("content('policy/x.jpg')") == b"x.jpeg"
    assert client.outcome("content('policy/y.tmp')") == "ENOENT"
    assert client.outcome("content('y.tmp')") == "ENOENT"
    program.run("entries.add('new.jpeg', Zeros(3)); await served.notified()")
    assert client.value("os.stat(p('new.jpg')).st_size") == 3
    program.run("entries.remove('new.jpeg'); await served.notified()")
    assert client.outcome("os.stat(p('new.jpg'))") == "ENOENT"


def test_a_file_that_comes_to_be_there_is_filtered(shows: Shows, where: str) -> None:
    source = "tree = Filter(where + '/top', hide=['*.tmp'])"
    _, client = shows(f"{source}; options = MountOptions(cache_timeout=0)", where=where)
    Path(where, "top/new.tmp").write_bytes(b"1")
    Path(where, "top/new").write_bytes(b"2")
    assert client.value("content('new')") == b"2"
    assert client.outcome("content('new.tmp')") == "ENOENT"
    os.rename(f"{where}/top/new", f"{where}/top/gone.tmp")
    assert client.outcome("content('new')") == "ENOENT"
    assert b"gone.tmp" not in client.value("os.listdir(p())")


def test_a_filter_after_a_revoke_shows_the_same(shows: Shows, where: str) -> None:
    program, client = shows(
        "tree = Filter(where + '/top', hide=['*.tmp'], rename={'*.jpeg': '*.jpg'})", where=where
    )
    assert client.value("content('sub/b.jpg')") == b"xxxx"
    program.run("served.revoke_lease()")
    assert client.value("content('sub/b.jpg')") == b"xxxx"
    assert client.outcome("content('sub/y.tmp')") == "ENOENT"
    assert sorted(client.value("os.listdir(p('sub'))")) == [b"b.jpg", b"c"]
