"""What `copies`, `doctor` and `bench` share: figures, progress, and being ended by a signal."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Final

from zcfuse.text import escaped

_LEAST_WIDTH: Final = 100
_PIPE_WIDTH: Final = 512
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


def print_figures(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], texts: frozenset[int]
) -> None:
    """Print cells that are text already, figures to the right; `texts` are columns of words.

    A column keeps its full width where the output is no terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = max(Console().width, _LEAST_WIDTH) if sys.stdout.isatty() else _PIPE_WIDTH
    table = Table(
        title=escaped(title) or None,
        show_header=any(columns),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        words = number in texts
        table.add_column(
            column,
            justify="left" if words else "right",
            overflow="fold",
            no_wrap=not words,
            vertical="top" if words else "bottom",
        )
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row))
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show progress on standard error while the block runs, if that is a terminal.

    The function that is yielded names the next of `total` steps; an empty name ends the last.
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
        begun = False

        def step(name: str) -> None:
            nonlocal begun
            bar.update(task, description=name, advance=1 if begun else 0)
            begun = True

        yield step


@contextlib.contextmanager
def unmounting_when_ended() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as an interrupt does, and with it the mounts."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
