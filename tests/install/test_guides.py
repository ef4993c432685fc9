"""The README, the tutorial and the how-to guides in a bare system, as their reader.

scripts/test-install runs this as root in a chroot that has the Debian package, and sudo for the
reader. Elsewhere it skips: it writes to /data, /mnt and /etc.
"""

import shutil
from collections.abc import Iterator

import pytest

from tests.docs.blocks import blocks_of, pages
from tests.docs.page import Page
from tests.install.reader import Reader
from tests.support import requires

pytestmark = requires("bare system")

GUIDES = [
    page for page in pages() if page in ("README.md", "docs/tutorial.md") or "/howto/" in page
]


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


@pytest.mark.parametrize("page", [page for page in GUIDES if blocks_of(page)])
def test_the_guide_works_for_its_reader(reader: Reader, page: str) -> None:
    runner = Page(reader)
    runner.prepare(page)
    for block in blocks_of(page):
        runner.run(block)


def test_the_reader_is_no_administrator(reader: Reader) -> None:
    status, said = reader.shell("id -u; touch /etc/mine")
    assert (status, said.splitlines()[0]) == (1, str(reader.uid))
    assert shutil.which("c++") is None
