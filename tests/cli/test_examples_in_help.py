"""The examples of the help pages: every command has some, and each is a line that it accepts."""

import importlib
import re
import shlex

import click
import pytest

from tests.cli.conftest import run_zcfuse
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


def test_a_help_page_ends_with_its_examples():
    result = run_zcfuse("unmount", "--help")
    assert result.stdout.rstrip().splitlines()[-1] == "    zcfuse umount --all"
