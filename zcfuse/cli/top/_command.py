"""``zcfuse top``: shows what a mount is doing now, and refreshes until the user quits."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from zcfuse.admin.status import StatusDocument, StatusError, read_status
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from zcfuse.cli.top._model import By

_LEAST_INTERVAL_S: Final = 0.1
# Seconds until a new size of the terminal takes effect.
_LOOK_S: Final = 0.2
_PIPE_WIDTH: Final = 200
_END: Final = "\x04"
_LEAVING: Final = ("q", "Q", "\x03", _END)
_HINT: Final = (
    "q quit \u00b7 s order files by requests or bytes \u00b7 t rates since the mount or now"
)


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@click.option(
    "--interval",
    type=click.FloatRange(min=_LEAST_INTERVAL_S),
    metavar="S",
    default=1.0,
    show_default=True,
    help="Seconds from one refresh to the next.",
)
@click.option(
    "--once", is_flag=True, help="Print one view of all requests since the mount, then end."
)
@click.option(
    "--sort",
    "by",
    type=click.Choice(["requests", "bytes"]),
    default="requests",
    show_default=True,
    help="Order of the hottest files.",
)
def top(mountpoint: str, interval: float, once: bool, by: By) -> None:
    """Show what the mount at MOUNTPOINT is doing: requests, latencies, bytes, hottest files.

    Rates and latencies cover the time since the last refresh. If standard output is no terminal,
    the command prints one view, as with --once. A latency is the daemon's part of a request, from
    its receipt until the reply is written.
    """
    document = _read(mountpoint)
    if once or not sys.stdout.isatty():
        _print_once(document, by)
    else:
        _Screen(mountpoint, interval, by).run(document)


def _read(mountpoint: str) -> StatusDocument:
    try:
        return read_status(mountpoint)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error


def _read_again(mountpoint: str) -> StatusDocument:
    try:
        return read_status(mountpoint)
    except StatusError as error:
        # The mount existed a moment ago, so this is no wrong use.
        raise CommandError(f"the mount is gone: {error}") from error


def _print_once(document: StatusDocument, by: By) -> None:
    from rich.console import Console

    from zcfuse.cli.top._model import between
    from zcfuse.cli.top._view import render

    fallback = (_PIPE_WIDTH, 24)
    width = None if sys.stdout.isatty() else shutil.get_terminal_size(fallback).columns
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(render(between(None, document, 0, by), console.width, None))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


class _Screen:
    """The live view: reads the status, draws it, and waits for the keyboard."""

    def __init__(self, mountpoint: str, interval: float, by: By) -> None:
        self._mountpoint = mountpoint
        self._interval = interval
        self._by: By = by
        self._since_mount = False
        self._earlier: StatusDocument | None = None
        self._later: StatusDocument | None = None
        self._times = (0.0, 0.0)

    def run(self, document: StatusDocument) -> None:
        """Show the view until the user presses ``q`` or interrupts it."""
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False)
        self._take(document)
        with (
            contextlib.suppress(KeyboardInterrupt),
            _single_keys(),
            Live(console=console, screen=True, auto_refresh=False) as live,
        ):
            while True:
                live.update(self._drawn(console), refresh=True)
                if self._left_before_refresh(console):
                    return
                if time.monotonic() >= self._times[1] + self._interval:
                    self._take(_read_again(self._mountpoint))

    def _take(self, document: StatusDocument) -> None:
        self._earlier, self._later = self._later, document
        self._times = (self._times[1], time.monotonic())

    def _drawn(self, console: Console) -> RenderableType:
        from zcfuse.cli.top._model import between
        from zcfuse.cli.top._view import render

        assert self._later is not None
        earlier = None if self._since_mount else self._earlier
        view = between(earlier, self._later, self._times[1] - self._times[0], self._by)
        return render(view, console.width, console.height, _HINT)

    def _left_before_refresh(self, console: Console) -> bool:
        """Wait until the next refresh, a key that changes the view or a new terminal size.

        Returns whether the user wants to quit.
        """
        drawn = console.size
        while (left := self._times[1] + self._interval - time.monotonic()) > 0:
            key = _key(min(left, _LOOK_S))
            if key in _LEAVING:
                return True
            if key == "s":
                self._by = "bytes" if self._by == "requests" else "requests"
            elif key == "t":
                self._since_mount = not self._since_mount
            if key in ("s", "t") or console.size != drawn:
                return False
        return False


def _key(seconds: float) -> str:
    """Return a key that the user presses within some seconds, or ""."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    descriptor = sys.stdin.fileno()
    readable, _, _ = select.select([descriptor], [], [], seconds)
    # Do not read sys.stdin, which would buffer a second key. At the end of input no key can quit
    # the view any more.
    return (os.read(descriptor, 1).decode("latin-1") or _END) if readable else ""


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Have the terminal pass keys on at once, without echo, if standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
