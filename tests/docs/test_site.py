"""The site builds without a warning, and its pages load nothing from other hosts."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tests.docs.blocks import pages
from tests.support._user import CHECKOUT

_BUILD_S = 110


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> str:
    """The site, built as ``make docs`` builds it: a warning is an error."""
    directory = str(tmp_path_factory.mktemp("site"))
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": CHECKOUT, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return directory


class _Loaded(HTMLParser):
    """Collects the addresses that a browser loads to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        wanted = given.get("href") if tag == "link" else given.get("src")
        self.addresses += [wanted] if wanted else []


def _html(site: str) -> list[str]:
    found = (os.path.join(above, name) for above, _, names in os.walk(site) for name in names)
    return sorted(path for path in found if path.endswith(".html"))


def test_every_page_is_on_the_site(site: str) -> None:
    names = [page.removeprefix("docs/").removesuffix(".md") + ".html" for page in pages()]
    wanted = ["index.html" if name == "README.html" else name for name in names]
    assert [name for name in wanted if not os.path.exists(os.path.join(site, name))] == []


def test_looking_at_a_page_fetches_nothing_from_elsewhere(site: str) -> None:
    foreign = re.compile(r"^(https?:)?//")
    found = []
    for path in _html(site):
        loaded = _Loaded()
        with open(path, encoding="utf-8") as file:
            loaded.feed(file.read())
        found += [(path, address) for address in loaded.addresses if foreign.match(address)]
    assert found == []


def test_the_command_line_and_the_docstrings_are_on_the_site(site: str) -> None:
    with open(os.path.join(site, "reference", "command-line.html"), encoding="utf-8") as file:
        commands = file.read()
    with open(os.path.join(site, "reference", "python.html"), encoding="utf-8") as file:
        python = file.read()
    assert "--cache-timeout" in commands
    assert "Sentinel" not in commands
    assert "within the bounded wait" in python


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_files_of_the_checkout(page: str) -> None:
    with open(os.path.join(CHECKOUT, page), encoding="utf-8") as file:
        targets = re.findall(r"\]\(([^)\s#]+)", file.read())
    above = os.path.dirname(os.path.join(CHECKOUT, page))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not os.path.exists(os.path.join(above, target))] == []
