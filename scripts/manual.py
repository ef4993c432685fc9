"""Generates zcfuse/share/man/zcfuse.1 from the template beside it and the ``--help`` texts.

``scripts/manual.py`` writes the page. ``scripts/manual.py --check`` exits with 0 if the page is
current.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

import click

from zcfuse.cli._examples import EXAMPLES
from zcfuse.cli._group import zcfuse

_PAGES = os.path.join(os.path.dirname(__file__), "..", "zcfuse", "share", "man")
_TEMPLATE = os.path.join(_PAGES, "zcfuse.1.in")
_PAGE = os.path.join(_PAGES, "zcfuse.1")
_PLACE = "@COMMANDS@\n"


def page() -> str:
    """Return the whole page."""
    with open(_TEMPLATE, encoding="utf-8") as file:
        return file.read().replace(_PLACE, "".join(_commands()))


def _commands() -> Iterator[str]:
    context = click.Context(zcfuse, info_name="zcfuse")
    for name in zcfuse.list_commands(context):
        command = zcfuse.get_command(context, name)
        assert command is not None
        yield from _command(command, click.Context(command, info_name=name, parent=context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_text(f'zcfuse {context.info_name} {usage}')}\n"
    for number, paragraph in enumerate((command.help or "").split("\n\n")):
        yield (".PP\n" if number else "") + _text(" ".join(paragraph.split())) + "\n"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if not isinstance(parameter, click.Option) or record is None or "--help" in parameter.opts:
            continue
        names, said = record
        yield f".TP\n.B {_text(names)}\n{_text(' '.join(said.split())) or '.'}\n"
    if examples := EXAMPLES.get(context.info_name or ""):
        yield ".PP\nExamples:\n.PP\n.nf\n.RS 4\n"
        yield "".join(f"{_text(line)}\n" for line in examples)
        yield ".RE\n.fi\n"


def _text(text: str) -> str:
    """Return a line of text with roff's special characters escaped."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub("[\"']", lambda quote: {'"': "\\(dq", "'": "\\(aq"}[quote[0]], escaped)
    return "\\&" + escaped if escaped.startswith(".") else escaped


def main() -> int:
    """Write the page, or check it."""
    if sys.argv[1:] == ["--check"]:
        with open(_PAGE, encoding="utf-8") as file:
            return int(file.read() != page())
    with open(_PAGE, "w", encoding="utf-8") as file:
        file.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
