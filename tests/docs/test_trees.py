"""docs/trees.md and docs/manifests.md: their blocks behave as described."""

import os
import re
from pathlib import Path

from tests.docs.blocks import blocks_of
from zcfuse import Dir, Who, load_manifest
from zcfuse.tree import VirtualTree


async def test_the_policy_of_the_page_answers_by_who_asks() -> None:
    found: dict[str, object] = {}
    exec(next(block.text for block in blocks_of("docs/trees.md") if "PerUser" in block.text), found)
    policy = found["PerUser"]()  # type: ignore[operator]
    tree = VirtualTree(policy)
    node, _ = await tree.lookup_for(tree.root, b"whoami", Who(7, 7, 1))  # type: ignore[misc]
    assert tree.open(node).pread(9, 0) == b"7\n"
    assert await policy.lookup("notes", Who(7, 7, 1)) is None


def test_the_tree_of_the_page_places_entries_with_other_attributes(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (text,) = [block.text for block in blocks_of("docs/trees.md") if "Dated" in block.text]
    found: dict[str, object] = {}
    exec(text.replace("/data", str(tmp_path)), found)
    tree = found["tree"]
    node, attributes = tree.lookup(tree.root, b"a")  # type: ignore[attr-defined]
    assert (attributes.mtime_ns, attributes.size) == (0, 3)
    listed = {name: entry.mtime_ns for _, name, _, entry in tree.listing(tree.root).entries(2)}  # type: ignore[attr-defined]
    assert listed == {b"a": 0}
    assert tree.open(node).pread(9, 0) == b"abc"  # type: ignore[attr-defined]


def test_the_page_tells_how_many_lines_each_program_has() -> None:
    rows = re.findall(
        r"\(\.\./(examples/\w+\.py)\) .*\| (\d+) \|", Path("docs/trees.md").read_text()
    )
    assert len(rows) == 6
    found = {path: len(Path(path).read_text().splitlines()) for path, _ in rows}
    assert {path: int(lines) for path, lines in rows} == found


def test_both_manifests_of_the_page_show_one_tree(tmp_path) -> None:
    shown = {block.title: block.text for block in blocks_of("docs/manifests.md")}
    (tmp_path / "raw").mkdir()
    for name, size in [("000.tar", 20_000), ("labels-v2.csv", 5), ("chr1.fa", 7), ("chr2.fa", 200)]:
        (tmp_path / name).write_bytes(b"x" * size)
    trees = []
    for name in ("tree.toml", "tree.jsonl"):
        source = shown[name].replace("/shards/", "").replace("/data/", "")
        (tmp_path / name).write_text(source)
        os.utime(tmp_path / name, (1, 1))
        trees.append(_described(load_manifest(tmp_path / name), ""))
    assert trees[0] == trees[1]
    assert trees[0]["/train/000.jpg"][1] == 14322
    assert trees[0]["/genome.fa"][1] == 7 + 4096 + 100 + 1


def _described(directory, above):
    tree = VirtualTree(directory)
    found = {}
    for _, name, _, attributes in tree.listing(tree.root).entries(2):
        path = f"{above}/{os.fsdecode(name)}"
        found[path] = (
            attributes.mode,
            attributes.size,
            attributes.gid,
            attributes.mtime_ns,
        )
        if isinstance(directory[name], Dir):
            found.update(_described(directory[name], path))
    return found
