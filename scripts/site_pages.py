"""A mkdocs hook that turns files outside docs/ into pages of the site.

README.md is the first page. CHANGELOG.md, LICENSE and every file in examples/ have one page each.
The sources contain links that work in the checkout. The hook rewrites links to these files, and
links from README.md into docs/. It leaves other links outside docs/ unchanged, and mkdocs warns
about them.
"""

from __future__ import annotations

import ast
import itertools
import os
import posixpath
import re
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_CHECKOUT: Final = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# Paths in the checkout, and their pages on the site.
_PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.md",
    "examples": "examples/index.md",
}
_LANGUAGES: Final = {".py": "python", ".conf": "nginx"}
_LINK: Final = re.compile(r"(?<=\]\()([^)\s#]+)((?:#[^)\s]*)?)(?=\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the examples to the navigation."""
    assert config.nav is not None
    pages = next(entry["Examples"] for entry in config.nav if "Examples" in entry)
    pages += [{name: f"examples/{name}.md"} for name in _examples()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    examples = _examples()
    made = {
        "index.md": _read("README.md"),
        "changelog.md": _read("CHANGELOG.md"),
        "licence.md": f"# Licence\n\n```text\n{_read('LICENSE')}```\n",
        "examples/index.md": _list_of(examples),
        **{f"examples/{name}.md": _example(name) for name in examples},
    }
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page that cross the border of docs/."""
    if page.parent is None:  # a single page in a tab needs no menu
        page.meta["hide"] = ["navigation"]
    here = _path_in_checkout(page.file.src_uri)
    directory = posixpath.dirname(here)

    def turned(link: re.Match[str]) -> str:
        target = link[1]
        if "://" in target or target.startswith(("/", "mailto:")):
            return link[0]
        found = _on_site(posixpath.normpath(posixpath.join(directory, target)))
        if found is None:
            return link[0]
        return posixpath.relpath(found, posixpath.dirname(page.file.src_uri) or ".") + link[2]

    return _LINK.sub(turned, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Empty the cells where mkdocs-click shows click's mark for "no default"."""
    return html.replace("<code>Sentinel.UNSET</code>", "")


def _on_site(path: str) -> str | None:
    """Return the site's page or file for `path` in the checkout; None if it has none."""
    if path in _PAGES:
        return _PAGES[path]
    if path.startswith("examples/"):
        return path if path.endswith(".md") else f"{path}.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _path_in_checkout(page: str) -> str:
    for path, made in _PAGES.items():
        if made == page and path != "examples":
            return path
    return page if page.startswith("examples/") else f"docs/{page}"


def _examples() -> list[str]:
    names = os.listdir(os.path.join(_CHECKOUT, "examples"))
    return sorted(name for name in names if os.path.splitext(name)[1] in _LANGUAGES)


def _list_of(examples: list[str]) -> str:
    rows = [f"- [{name}]({name}.md): {_summary(name)}\n" for name in examples]
    return "# Examples\n\nComplete programs from `examples/` of the checkout.\n\n" + "".join(rows)


def _example(name: str) -> str:
    language = _LANGUAGES[os.path.splitext(name)[1]]
    return f'# {name}\n\n```{language} title="examples/{name}"\n{_source(name)}```\n'


def _summary(name: str) -> str:
    """Return the first paragraph of a program's docstring, or of another file's first comment."""
    text = _source(name)
    told = ast.get_docstring(ast.parse(text)) if name.endswith(".py") else _comment(text)
    return (told or name).split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _comment(text: str) -> str:
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in lines)


def _source(name: str) -> str:
    return _read(os.path.join("examples", name))


def _read(path: str) -> str:
    with open(os.path.join(_CHECKOUT, path), encoding="utf-8") as file:
        return file.read()
