"""The manual pages match the command line, and man shows them without a warning."""

import os
import re
import subprocess
import sys

import click
import pytest

from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.cli.mount import OPTIONS
from zcfuse.cli.mount.helper import mount_helper

PAGES = os.path.join(CHECKOUT, "zcfuse/share/man")
NAMES = sorted(name for name in os.listdir(PAGES) if name[-1].isdigit())


def text(page: str) -> str:
    """The page as a reader sees it, without fonts."""
    with open(os.path.join(PAGES, page)) as file:
        return re.sub(r"\\f.|\\-", lambda match: "-" if match[0] == "\\-" else "", file.read())


def test_the_generated_pages_are_current():
    script = os.path.join(CHECKOUT, "scripts/manual.py")
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    result = subprocess.run([sys.executable, script, "--check"], env=environment, timeout=60)
    assert result.returncode == 0, "run scripts/manual.py"


def test_the_page_of_the_helper_has_every_option():
    page = text("mount.fuse.zcfuse.8")
    context = click.Context(mount_helper)
    flags = [flag for option in mount_helper.get_params(context) for flag in option.opts]
    for name in [flag for flag in flags if flag.startswith("-")]:
        assert re.search(rf"^\.(TP|B|BI|BR).*{name}\b", page, re.MULTILINE), name
    for name in [spelling for option in OPTIONS for spelling in option.spellings]:
        assert re.search(rf"^\.(B|BI|BR) .*\b{name}", page, re.MULTILINE), name


@requires("man")
@pytest.mark.parametrize("page", NAMES)
def test_man_shows_it_without_a_warning(page):
    result = subprocess.run(
        ["man", "--local-file", "--warnings=w", os.path.join(PAGES, page)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert all(f"\n{name}\n" in result.stdout for name in ("NAME", "SYNOPSIS", "SEE ALSO"))
