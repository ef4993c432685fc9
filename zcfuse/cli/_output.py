"""Tables for people (rich) and JSON for programs, from the same data."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import click
import msgspec

from zcfuse.text import escaped


def json_option(function: click.decorators.FC) -> click.decorators.FC:
    """Add ``--json`` to a command, as the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(
        function
    )


def print_json(value: object) -> None:
    """Print a value as indented JSON; whatever msgspec can encode."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are set right, with thousands marked.

    Columns keep their full width where the output is no terminal, so that a pipe loses nothing.
    """
    # rich takes a tenth of a second to import, and most errors come before any table.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Wide enough for the longest path where nobody told the width.
    console = Console() if sys.stdout.isatty() else Console(width=512)
    body = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for number, column in enumerate(columns):
        numeric = bool(body) and all(isinstance(row[number], int | float) for row in body)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*(Text(shown(cell)) for cell in row))
    if title:
        # Not the table's own title, which would be folded to the width of a narrow table.
        console.print(Text(escaped(title), style="bold"))
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        # Cells are filled up to the width of their column, which wraps where lines are pasted.
        console.out(line.rstrip(), highlight=False)
    if title:
        console.print()


def print_pairs(title: str, pairs: Mapping[str, object]) -> None:
    """Print a table of names and values."""
    print_table(title, ("", ""), [(name, shown(value)) for name, value in pairs.items()])


def shown(value: object) -> str:
    """Return a value as people read it."""
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
