"""Every code block of README.md and docs/ is run, or says why it is not."""

import contextlib
import os
import re
import tempfile
from collections import Counter
from typing import Final

import pytest

from tests.docs.blocks import blocks_of, pages
from tests.docs.page import Page
from tests.docs.sandbox import Sandbox
from tests.support import requires, skip_unless

# The permitted reasons for not running a block, and the number of blocks for each.
NOT_RUN: Final = {
    "takes minutes": 8,
    "installs packages": 8,
    "changes the machine": 2,
    "needs systemd as process 1": 2,
    "needs a bucket": 4,
    "needs a bucket and Ray": 1,
    "needs a cluster": 2,
    "takes minutes, and needs the suites": 1,
    "needs a mounted bucket": 2,
}


@requires("mounting")
@pytest.mark.parametrize("page", [page for page in pages() if blocks_of(page)])
def test_the_blocks_of_the_page_do_what_it_says(page: str) -> None:
    blocks = blocks_of(page)
    system = any("sudo " in block.text and not block.not_run for block in blocks)
    if system:
        skip_unless("root", "private mounts", "overlay layers")
    # Not below pytest's directory, which other users cannot enter: some pages use other users.
    with tempfile.TemporaryDirectory(prefix="zcfuse-page-") as directory:
        os.chmod(directory, 0o755)
        with contextlib.closing(Sandbox(directory, system=system)) as sandbox:
            runner = Page(sandbox)
            runner.prepare(page)
            for block in blocks:
                runner.run(block)


def test_every_block_is_run_or_says_why_not() -> None:
    blocks = [block for page in pages() for block in blocks_of(page)]
    assert [block.where for block in blocks if not block.accounted_for] == []
    assert Counter(block.not_run for block in blocks if block.not_run) == NOT_RUN


def test_no_command_passes_for_text() -> None:
    blocks = [block for page in pages() for block in blocks_of(page) if block.language == "text"]
    prompts = re.compile(r"^\$ ", re.MULTILINE)
    assert [block.where for block in blocks if prompts.search(block.text)] == []


@pytest.mark.parametrize("page", pages())
def test_a_file_that_is_shown_is_used_by_a_command_below_it(page: str) -> None:
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        # The system reads files in /etc without a command.
        if block.title and not block.title.startswith("/") and not block.not_run:
            used = (later.text for later in blocks[number + 1 :] if not later.title)
            assert any(block.title in text for text in used), block.where
