"""Completes the arguments of commands in a shell, through click."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem

from zcfuse.admin.status import list_mounts
from zcfuse.cli.mount import OPTION_NAMES
from zcfuse.options import SERVING_PATHS, TRANSPORTS, known_options


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


def paths(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the serving paths."""
    return _beginning(SERVING_PATHS, incomplete)


def transports(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the transports."""
    return _beginning(TRANSPORTS, incomplete)


def mount_options(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the options that may follow the last comma of ``-o``."""
    before, comma, last = incomplete.rpartition(",")
    known = sorted({*known_options(), *OPTION_NAMES})
    return [CompletionItem(before + comma + item.value) for item in _beginning(known, last)]


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
