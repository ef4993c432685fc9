"""Lays out tables as lines of text that fit a width. All functions are pure.

The first column names the row and keeps its width. A table that is too wide folds its columns of
words. If it is still too wide, it becomes several blocks of columns, each with the first column.
If the first column alone takes most of the width, each row becomes a record: its name, then its
cells.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len

_GAP: Final = 2
# A narrower column of words is hard to read.
_LEAST_WORDS: Final = 24
_INDENT: Final = "    "
_DOT: Final = " \u00b7 "

Widths = Mapping[int, int]
"""The columns of one block in their order, and how wide each is."""


def laid_out(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Collection[int],
    width: int | None,
) -> list[str]:
    """Return the lines of a table.

    Parameters:
        headings: one for each column, of one or more lines. If all are empty, no heading appears.
        rows: the cells, one for each column.
        words: the columns of words, set left and folded; the others are figures, set right.
        width: columns of the terminal; None for the full width of the table.
    """
    natural = {
        number: max(map(cell_len, [*heading.split("\n"), *(row[number] for row in rows)]))
        for number, heading in enumerate(headings)
    }
    if width is not None and natural[0] + _GAP + _LEAST_WORDS > width < _total(natural):
        return list(_records(headings, rows, width))
    lines: list[str] = []
    for widths in _blocks(natural, words, width):
        lines += [""] if lines else []
        if any(headings):
            lines += _line([heading.split("\n") for heading in headings], widths, words, below=True)
        for row in rows:
            folded = [_folded(cell, widths.get(number, 0)) for number, cell in enumerate(row)]
            lines += _line(folded, widths, words)
    return lines


def _total(widths: Widths) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _blocks(natural: Widths, words: Collection[int], width: int | None) -> Iterator[Widths]:
    """Yield the columns of each block."""
    if width is None or _total(natural) <= width:
        yield natural
        return
    foldable = [number for number in natural if number and number in words]
    fixed = {number: natural[number] for number in natural if number not in foldable}
    room = width - _total(fixed) - _GAP * len(foldable)
    if foldable and room >= sum(min(natural[number], _LEAST_WORDS) for number in foldable):
        shares = _shares({number: natural[number] for number in foldable}, room)
        yield {number: shares.get(number, natural[number]) for number in natural}
        return
    most = width - natural[0] - _GAP
    block = {0: natural[0]}
    for number in list(natural)[1:]:
        wanted = min(natural[number], most)
        if len(block) > 1 and _total(block) + _GAP + wanted > width:
            yield block
            block = {0: natural[0]}
        block[number] = wanted
    yield block


def _shares(natural: Widths, room: int) -> dict[int, int]:
    """Divide `room` among columns: each gets at most its need, the wide ones share the rest."""
    shares: dict[int, int] = {}
    for done, number in enumerate(sorted(natural, key=lambda number: natural[number])):
        share = (room - sum(shares.values())) // (len(natural) - done)
        shares[number] = min(natural[number], share)
    return shares


def _folded(cell: str, width: int) -> list[str]:
    """Break a cell into lines, at its spaces if it has any."""
    if cell_len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, max(width, 1), break_on_hyphens=False) or [""]


def _line(
    cells: Sequence[Sequence[str]], widths: Widths, words: Collection[int], *, below: bool = False
) -> Iterator[str]:
    """Yield the lines of one row. With `below`, a short cell stands at the bottom of the row."""
    height = max(len(cells[number]) for number in widths)
    columns = []
    for number, width in widths.items():
        empty = [""] * (height - len(cells[number]))
        lines = [*empty, *cells[number]] if below else [*cells[number], *empty]
        columns.append([_set(line, width, left=number in words) for line in lines])
    for parts in zip_longest(*columns, fillvalue=""):
        yield (" " * _GAP).join(parts).rstrip()


def _set(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


def _records(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Iterator[str]:
    """Yield each row as a record: its first cell, then the others below it with their headings."""
    for row in rows:
        yield row[0]
        facts = [
            f"{heading} {cell}".replace("\n", " ").strip()
            for heading, cell in zip(headings[1:], row[1:], strict=True)
        ]
        yield from textwrap.wrap(
            _DOT.join(facts),
            width,
            initial_indent=_INDENT,
            subsequent_indent=_INDENT,
            break_on_hyphens=False,
        )
