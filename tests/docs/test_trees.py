"""docs/trees.md and the README: what they show is Python that puts the trees together."""

import os
import re

import pytest

from tests.support._user import CHECKOUT
from zcfuse import Dir, Who, load_manifest
from zcfuse.tree import VirtualTree


def blocks(*path: str) -> list[str]:
    with open(os.path.join(CHECKOUT, *path)) as page:
        return re.findall(r"^```python\n(.*?)^```", page.read(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("path", "names"), [(("docs", "trees.md"), 6), (("README.md",), 4)])
def test_the_tree_of_the_page_can_be_put_together(path, names, tmp_path, monkeypatch) -> None:
    source = blocks(*path)[0].replace('"/data"', repr(str(tmp_path)))
    found: dict[str, object] = {"__name__": "page"}
    exec(source.replace("\ntrio.run(main)\n", "\n"), found)
    tree = found["tree"]
    assert isinstance(tree, Dir)
    assert len(tree) == names


async def test_the_policy_of_the_page_answers_by_who_asks() -> None:
    found: dict[str, object] = {}
    exec(blocks("docs", "trees.md")[1], found)
    policy = found["PerUser"]()  # type: ignore[operator]
    tree = VirtualTree(policy)
    node, _ = await tree.lookup_for(tree.root, b"whoami", Who(7, 7, 1))  # type: ignore[misc]
    assert tree.open(node).pread(9, 0) == b"7\n"
    assert await policy.lookup("notes", Who(7, 7, 1)) is None


def test_both_manifests_of_the_page_show_one_tree(tmp_path, monkeypatch) -> None:
    with open(os.path.join(CHECKOUT, "docs", "manifests.md")) as page:
        text = page.read()
    (tmp_path / "raw").mkdir()
    for name, size in [("000.tar", 20_000), ("labels-v2.csv", 5), ("chr1.fa", 7), ("chr2.fa", 200)]:
        (tmp_path / name).write_bytes(b"x" * size)
    trees = []
    for language, name in ("toml", "tree.toml"), ("json", "tree.jsonl"):
        source = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
        source = source.replace("/shards/", "").replace("/data/", "")
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
