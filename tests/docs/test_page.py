"""The runner of the pages runs blocks and notices failures."""

import pytest

from tests.docs.blocks import Block, parse
from tests.docs.interpreters import HungError, Interpreter
from tests.docs.page import Page, PageError, agrees, commands
from tests.docs.sandbox import Sandbox


@pytest.fixture
def sandbox(tmp_path):
    made = Sandbox(str(tmp_path))
    yield made
    made.close()


def block(text: str, language: str = "console", **more) -> Block:
    return Block("page.md", 1, language, text=text, **{"title": "", **more})


def test_the_blocks_of_a_page_are_found_with_what_is_said_before_them() -> None:
    text = (
        "# A\n\n<!-- not run: takes minutes -->\n```console\n$ make\n```\n\nB:\n\n"
        '- ```toml title="a.toml"\n  x = 1\n  ```\n\n<!-- needs: root -->\n\n```python\n1\n```\n'
    )
    first, second, third = parse(text, "page.md")
    assert (first.where, first.not_run, first.text) == ("page.md:4", "takes minutes", "$ make\n")
    assert (second.language, second.title, second.text) == ("toml", "a.toml", "x = 1\n")
    assert (third.needs, third.not_run) == (("root",), "")


@pytest.mark.parametrize("text", ["```\nx\n```", "```toml\nx = 1\n```", "```sh\nx\n```", "    x\n"])
def test_a_block_that_nothing_becomes_of_is_not_accounted_for(text: str) -> None:
    assert not next(parse(text, "page.md")).accounted_for


def test_commands_have_further_lines_and_output() -> None:
    found = list(commands("$ cat <<END\n> a\n> END\na\n\nb\n$ true\n"))
    assert [(one.text, one.shown) for one in found] == [
        ("cat <<END\na\nEND", "a\n\nb"),
        ("true", ""),
    ]


@pytest.mark.parametrize(
    ("shown", "output", "wanted"),
    [
        ("a  b", "a b\n", True),
        ("a ... c", "a bb c\n", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...", "a\n", True),
        ("a\n...\nd", "a\nb\n", False),
        ("a", "a\nb\n", False),
        ("a.c", "abc\n", False),
    ],
)
def test_shown_output_agrees_with_what_was_printed(shown: str, output: str, wanted: bool) -> None:
    assert agrees(shown, output) is wanted


def test_blocks_share_directory_and_names(sandbox) -> None:
    page = Page(sandbox)
    page.run(block("$ cd /data && name=value\n"))
    page.run(block("$ pwd; echo $name\n/data\nvalue\n"))
    page.run(block("import trio\nx = 1\n", "python"))
    page.run(block("await trio.lowlevel.checkpoint()\nassert x == 1\n", "python"))
    page.run(block("file of /data\n", "text", title="f.txt"))
    page.run(block("$ cat ~/f.txt\nfile of /data\n"))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("$ false\n", "console"),
        ("$ false\n$ true\n", "console"),
        ("$ echo a\nb\n", "console"),
        ("$ exit 1\n", "console"),
        ("no prompt\n", "console"),
        ("assert False\n", "python"),
    ],
)
def test_what_fails_fails_the_page(sandbox, text: str, language: str) -> None:
    with pytest.raises((PageError, HungError)):
        Page(sandbox).run(block(text, language))


def test_a_failure_that_is_shown_is_none(sandbox) -> None:
    Page(sandbox).run(block("$ cat /data/none\ncat: /data/none: No such file or directory\n"))


def test_a_block_that_says_why_is_not_run(sandbox) -> None:
    Page(sandbox).run(block("$ false\n", not_run="takes minutes"))


def test_a_script_that_hangs_is_killed(sandbox, tmp_path) -> None:
    (tmp_path / "script").write_text("echo before; sleep 60\n")
    shell = Interpreter("bash", str(tmp_path), sandbox.environment())
    with pytest.raises(HungError, match="before"):
        shell.run(str(tmp_path / "script"), 0.5)
