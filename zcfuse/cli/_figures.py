"""Progress and signal handling for `copies`, `doctor` and `bench`."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

import click

_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)
_LINE_SECONDS: Final = 10.0


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show progress on standard error while the block runs: a bar, or lines without a terminal.

    The yielded function names the next of `total` steps. An empty name ends the last step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    columns = (BarColumn(), MofNCompleteColumn(), Elapsed(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=total)
        done = -1
        told = time.monotonic()

        def step(name: str) -> None:
            nonlocal done, told
            done += 1
            bar.update(task, description=name, completed=done)
            if bar.disable and time.monotonic() - told >= _LINE_SECONDS:
                told = time.monotonic()
                click.echo(f"{done} of {total} steps are done. {name}".rstrip(), err=True)

        yield step


@contextlib.contextmanager
def unmounting_when_ended() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block, as an interrupt does, so that its mounts end."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
