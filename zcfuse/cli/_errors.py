"""Turns an exception into one line on standard error and an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import click

from zcfuse.control import is_journal, with_priority
from zcfuse.text import escaped

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
# Shells report this status for a command that SIGINT ended.
EXIT_INTERRUPTED: Final = 130


class CommandError(click.ClickException):
    """Ends a command with one line on standard error.

    Parameters:
        message: names the file or the option, and the remedy.
        usage: True for wrong use (exit status 2), False if the machine does not permit it (1).
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


@dataclass(frozen=True, slots=True)
class Program:
    """The name and the exit statuses of a program; the defaults are those of ``zcfuse``."""

    name: str = "zcfuse"
    failed: int = EXIT_FAILED
    usage: int = EXIT_USAGE
    interrupted: int = EXIT_INTERRUPTED


ZCFUSE: Final = Program()


def warn(message: str, *, level: int = logging.WARNING) -> None:
    """Write one line to standard error. In the journal the line also gets its level."""
    line = _one_line(message)
    line = with_priority(line, level) if is_journal(sys.stderr) else line
    print(line, file=sys.stderr, flush=True)


def run(command: click.Command, arguments: Sequence[str] | None, program: Program = ZCFUSE) -> int:
    """Run a command and return the exit status of the process."""
    try:
        result = command.main(arguments, prog_name=program.name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # A bare ``zcfuse`` shows the help page.
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return program.usage
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else program.name
        _complain(f"{path}: {error.format_message()} (see '{path} --help')")
        return program.usage
    except CommandError as error:
        _complain(f"{program.name}: {error.format_message()}")
        return program.usage if error.usage else program.failed
    except click.ClickException as error:
        _complain(f"{program.name}: {error.format_message()}")
        return program.failed
    except (click.Abort, KeyboardInterrupt):
        _complain(f"{program.name}: interrupted")
        return program.interrupted
    except BrokenPipeError:
        # The reader closed the pipe. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return program.failed
    except OSError as error:
        _complain(f"{program.name}: {error.filename or 'system call'}: {error.strerror or error}")
        return program.failed
    return result if isinstance(result, int) else 0


def _complain(message: str) -> None:
    warn(message, level=logging.ERROR)


def _one_line(message: str) -> str:
    return escaped(" ".join(message.split("\n")))
