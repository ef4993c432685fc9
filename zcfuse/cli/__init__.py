"""The command line ``zcfuse COMMAND ...``. Each command has a module, which loads on first use."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from zcfuse.cli._errors import run
from zcfuse.cli._group import is_from_mount, zcfuse

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process.

    Exit status: 0 after success, 2 for wrong use, 1 if the machine or its state does not permit
    the command, 130 after an interrupt. Each error is one line on standard error.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if is_from_mount(given):
        from zcfuse.cli.mount import helper

        helper.main(given)
    sys.exit(run(zcfuse, arguments))
