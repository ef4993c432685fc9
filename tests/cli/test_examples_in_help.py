"""The examples of the help pages: every command has some, and each is a line that it accepts."""

import importlib
import re
import shlex

import click
import pytest
from click.testing import CliRunner

from zcfuse.cli._examples import EXAMPLES

GROUP = importlib.import_module("zcfuse.cli._group").zcfuse
NAMES = GROUP.list_commands(click.Context(GROUP))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_examples_that_it_accepts(name):
    command = GROUP.get_command(click.Context(GROUP), name)
    assert EXAMPLES[name]
    for line in EXAMPLES.get(name, ()):
        words = shlex.split(re.sub(r"sudo |source <\(|\)| \|.*", "", line))
        assert words[:2] == ["zcfuse", name]
        command.make_context(name, words[2:])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_help_page_ends_with_its_examples(name):
    page = CliRunner().invoke(GROUP, [*name.split(), "--help"]).output
    shown = [line.strip() for line in page.rstrip().splitlines()]
    assert shown[-len(EXAMPLES[name]) :] == list(EXAMPLES[name])
