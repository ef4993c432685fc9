"""Finds the code blocks of README.md and docs/.

The tests run blocks of ``console`` or ``python``. They write a block with a title
(```` ```toml title="tree.toml" ````) to that file for the commands below it, and ignore ``text``.
Any other block says why it is not run, in a comment right before it:

    <!-- not run: installs packages -->
    <!-- needs: root, passthrough -->

The second kind names capabilities (`tests.support`) that the block requires.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from markdown_it import MarkdownIt

from tests.support._user import CHECKOUT

RUN: Final = frozenset({"console", "python"})
NO_COMMAND: Final = frozenset({"text"})
_MARK: Final = re.compile(r"<!--\s*(not run|needs):\s*(.*?)\s*-->", re.DOTALL)
_TITLE: Final = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    """One code block of a page; ``line`` is the line of its fence."""

    page: str
    line: int
    language: str
    title: str
    text: str
    not_run: str = ""
    needs: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and line, as editors open them."""
        return f"{self.page}:{self.line}"

    @property
    def accounted_for(self) -> bool:
        """Whether the tests run it, write it to a file or ignore it, or it says why not."""
        return bool(self.not_run or self.title or self.language in RUN | NO_COMMAND)


def pages() -> list[str]:
    """README.md and every page below docs/, relative to the checkout."""
    found = ["README.md"]
    for directory, _, names in os.walk(os.path.join(CHECKOUT, "docs")):
        above = os.path.relpath(directory, CHECKOUT)
        found += [os.path.join(above, name) for name in names if name.endswith(".md")]
    return sorted(found)


def blocks_of(page: str) -> list[Block]:
    """The blocks of one page, from top to bottom."""
    with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
        return list(parse(file.read(), page))


def parse(text: str, page: str) -> Iterator[Block]:
    """Yield the blocks of the Markdown `text`; indented ones have no language."""
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block":
            marks |= dict(_MARK.findall(token.content))
            continue
        if token.type in ("fence", "code_block"):
            language, _, rest = token.info.strip().partition(" ")
            title = _TITLE.search(rest)
            yield Block(
                page=page,
                line=(token.map or [0])[0] + 1,
                language=language,
                title=title[1] if title else "",
                text=token.content,
                not_run=marks.get("not run", ""),
                needs=tuple(name.strip() for name in marks.get("needs", "").split(",") if name),
            )
        marks = {}
