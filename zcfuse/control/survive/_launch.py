"""Starts the holder, which starts the daemons of a mount."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from zcfuse.control._background import run_program_in_background
from zcfuse.control.survive._plan import Plan
from zcfuse.datapath import holder_program
from zcfuse.linux import MountError

# -P: the working directory is no place for modules; the plan has the command's own places.
_DAEMON: Final = ("-P", "-m", "zcfuse.cli.mount.generation")
_NO_REPORT: Final = -1


def start_under_holder(plan: Plan, check: Callable[[], None], *, keeps_error_output: bool) -> None:
    """Start the holder and the first daemon in the background, and wait until that serves.

    Parameters:
        plan: of the mount.
        check: raises MountError if the mount does not answer.
        keeps_error_output: whether standard error is the log.

    Raises:
        MountError: the mount failed; no process remains.
    """
    program = holder_program()
    stored = plan.stored()
    try:
        ground = "journal" if keeps_error_output else "background"
        run_program_in_background(lambda report: _command(program, stored, report, ground), check)
    finally:
        os.close(stored)


def run_under_holder(plan: Plan) -> NoReturn:
    """Replace this process by the holder of a mount in the foreground.

    Raises:
        MountError: the holder cannot be executed.
    """
    program = holder_program()
    command = _command(program, plan.stored(), _NO_REPORT, "foreground")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, command)
    except OSError as error:
        raise MountError(f"survive: {program}: {error.strerror}: install zcfuse again") from error


def _command(program: str, stored: int, report: int, ground: str) -> list[str]:
    os.set_inheritable(stored, True)
    return [program, str(stored), str(report), ground, sys.executable, *_DAEMON]
