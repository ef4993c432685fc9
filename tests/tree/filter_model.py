"""What a filter shows of a directory, in plain Python; and patterns to try."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hypothesis import strategies as st

NAMES: Final = ["a", "b", "a.tmp", "b.tmp", "ab", ".git", "é", "a.txt"]
GLOBS: Final = st.lists(
    st.sampled_from(
        [
            "*",
            "a*",
            "*.tmp",
            "?",
            "[ab]",
            "[!a]*",
            "[^a-b]",
            "a/b",
            "/a",
            "a/*.tmp",
            "b/",
            "*/",
            ".git",
            "*/a/*",
            "\\*",
            "[é]",
            "*.t*p",
            "a/*/",
            "**b",
        ]
    ),
    max_size=3,
)
RENAMES: Final = st.sampled_from(
    [
        {},
        {},
        {"*.tmp": "*.txt"},
        {"a": "b"},
        {"a": "b", "b": "a"},
        {"a*": "*b"},
        {"*": "x*"},
        {"a.tmp": "a.txt", "*.tmp": "*"},
        {"*.txt": "*.tmp", "ab": "a"},
        {"é": "e", ".git": "é"},
    ]
)

Shown = dict[str, Any]


def random_tree(depth: int = 2) -> st.SearchStrategy[Any]:
    """A directory as a dictionary; a file is its number of bytes."""
    below = (
        st.integers(0, 9) if depth == 0 else st.one_of(st.integers(0, 9), random_tree(depth - 1))
    )
    return st.dictionaries(st.sampled_from(NAMES), below, max_size=5)


def write_tree(where: str, tree: Mapping[str, Any]) -> None:
    """Write a directory."""
    os.makedirs(where)
    for name, entry in tree.items():
        path = os.path.join(where, name)
        if isinstance(entry, dict):
            write_tree(path, entry)
        else:
            with open(path, "wb") as file:
                file.write(b"x" * entry)


def filtered(
    tree: Mapping[str, Any],
    hide: Sequence[str],
    show: Sequence[str],
    rename: Mapping[str, str],
    above: str = "",
) -> Shown:
    """What is to be seen of a directory."""
    chosen: dict[str, tuple[int, str]] = {}
    for name, entry in tree.items():
        path = above + name
        directory = isinstance(entry, dict)
        if any(_fits(glob, path, directory) for glob in hide) and not any(
            _fits(glob, path, directory) for glob in show
        ):
            continue
        rank, new = _renamed(name, rename)
        if new not in chosen or rank < chosen[new][0]:
            chosen[new] = (rank, name)
    return {
        new: filtered(tree[name], hide, show, rename, f"{above}{name}/")
        if isinstance(tree[name], dict)
        else tree[name]
        for new, (_, name) in chosen.items()
    }


def _fits(glob: str, path: str, directory: bool) -> bool:
    if glob.endswith("/"):
        if not directory:
            return False
        glob = glob[:-1]
    if "/" not in glob:
        path = path.rpartition("/")[2]
    return re.fullmatch(_regex(glob.removeprefix("/")), path, re.DOTALL) is not None


def _regex(glob: str) -> str:
    made = ""
    for token in re.findall(r"\\.|\[[!^]?\]?[^]]*\]|.", glob, re.DOTALL):
        if token == "*":
            made += "[^/]*"
        elif token == "?":
            made += "[^/]"
        elif len(token) > 1 and token[0] == "[":
            made += "(?!/)[" + token[1:-1].replace("!", "^", 1) + "]"
        else:
            made += re.escape(token[-1])
    return made


def _renamed(name: str, rename: Mapping[str, str]) -> tuple[int, str]:
    for rank, (old, new) in enumerate(rename.items()):
        found = re.fullmatch(re.escape(old).replace(r"\*", "(.*)"), name, re.DOTALL)
        made = found and new.replace("*", found[1] if "*" in old else "*")
        if made:
            return (-1 if made == name else rank), made
    return -1, name
