"""docs/trees.md and the README: what they show is Python that puts the trees together."""

import os
import re

import pytest

from tests.support._user import CHECKOUT
from zcfuse import Dir, Who
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
