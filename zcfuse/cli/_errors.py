"""From an exception to one line on standard error and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
# What shells report for a command that SIGINT ended.
EXIT_INTERRUPTED: Final = 130


class CommandError(click.ClickException):
    """Ends a command with one line.

    Parameters:
        message: names the file or the option, and the remedy.
        usage: True if what was typed is wrong (exit status 2), False if it cannot be done here (1).
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.status = EXIT_USAGE if usage else EXIT_FAILED


def warn(message: str) -> None:
    """Write one line to standard error."""
    print(_one_line(message), file=sys.stderr, flush=True)


def run(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run a command and return the exit status of the process."""
    try:
        result = command.main(arguments, prog_name="zcfuse", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # The help page is the answer to a bare ``zcfuse``.
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "zcfuse"
        warn(f"{path}: {error.format_message()} (see '{path} --help')")
        return error.exit_code
    except CommandError as error:
        warn(f"zcfuse: {error.format_message()}")
        return error.status
    except click.ClickException as error:
        warn(f"zcfuse: {error.format_message()}")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        warn("zcfuse: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain when it flushes at the
        # end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        warn(f"zcfuse: {error.filename or 'system call'}: {error.strerror or error}")
        return EXIT_FAILED
    return result if isinstance(result, int) else 0


def _one_line(message: str) -> str:
    text = " ".join(message.split("\n"))
    return os.fsencode(text).decode("utf-8", "backslashreplace")
