"""Tables for people and JSON for programs, from the same data."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import click
import msgspec

from zcfuse.text import escaped

_PAGE_WIDTH: Final = 95


def json_option(function: click.decorators.FC) -> click.decorators.FC:
    """Add ``--json`` to a command, as the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(
        function
    )


def print_json(value: object) -> None:
    """Print a value as indented JSON. msgspec must be able to encode the value."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table that fits the terminal, with numbers set right and thousands marked."""
    body = [list(row) for row in rows]
    words = {
        number
        for number in range(len(columns))
        if not body or not all(isinstance(row[number], int | float) for row in body)
    }
    print_cells(title, columns, [[shown(cell) for cell in row] for row in body], words)
    if title:
        click.echo()


def print_cells(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int]
) -> None:
    """Print cells that are text already. `words` names the columns of words; the rest are figures.

    The table fits the terminal. If standard output is no terminal, each row stays on one line, so
    that a program can read the rows from the pipe.
    """
    # rich takes a tenth of a second to import, and most errors end a command before any table.
    from zcfuse.cli._table import laid_out

    if title:
        click.echo(click.style(escaped(title), bold=True))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    cells = [[escaped(cell) for cell in row] for row in rows]
    for line in laid_out(columns, cells, words, width):
        click.echo(line)


def print_note(text: str) -> None:
    """Print a paragraph, folded to the width of the terminal, or of a page without a terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PAGE_WIDTH
    click.echo(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False))


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Print a table of names and values."""
    print_table(title, ("", ""), [(name, shown(value)) for name, value in pairs.items()])


def shown(value: object) -> str:
    """Return a value in the form that people read."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " ".join(shown(item) for item in value) or "-"
    return escaped(str(value))


def duration(nanoseconds: object) -> str:
    """Return a time with a unit and three digits: ``18.2 us``."""
    if not isinstance(nanoseconds, int):
        return shown(nanoseconds)
    amount, unit = float(nanoseconds), "ns"
    for larger in ("us", "ms", "s"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    digits = 0 if unit == "ns" or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {unit}"


def size(count: object) -> str:
    """Return a number of bytes with a unit: ``1.5 MiB``."""
    if not isinstance(count, int):
        return shown(count)
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
