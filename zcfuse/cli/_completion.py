"""Completes the arguments of commands in a shell, through click."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from zcfuse.admin.status import list_mounts


def mountpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the existing zcfuse mounts. The typed text may be another path to one of them."""
    found = [entry.mountpoint for entry in list_mounts()]
    fitting = [path for path in found if path.startswith(incomplete)]
    return [CompletionItem(path) for path in fitting] or directories(context, parameter, incomplete)


def files(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def directories(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a directory."""
    return [CompletionItem(incomplete, type="dir")]
