"""The command line: ``zcfuse COMMAND ...``, one module a command, each loaded when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zcfuse.cli._errors import run
from zcfuse.cli._group import is_from_mount, zcfuse

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process.

    Exit status: 0 when it was done, 2 when what was typed is wrong, 1 when the machine or its
    state does not permit it, 130 after an interrupt. An error is one line on standard error.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if is_from_mount(given):
        from zcfuse.cli.mount import helper

        helper.main(given)
    sys.exit(run(zcfuse, arguments))
