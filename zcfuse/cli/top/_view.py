"""Draws a `View` of ``zcfuse top`` as rich renderables that fit a width and, if live, a height.

Up to 160 columns the sections stand below one another; on wider terminals they stand side by side.
If the height is too small, sections lose rows, the least important section first. Each such section
says how many rows it hides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zcfuse.cli._output import duration, size
from zcfuse.cli.top._model import FileRow, PathRow, Requests, View
from zcfuse.datapath import Latency
from zcfuse.reasons import reason_text
from zcfuse.text import escaped

_SIDE_BY_SIDE: Final = 160
_GAP: Final = 3
_MOST_FILES: Final = 15
_WIDE: Final = 90
# On a narrower terminal, tables show fewer figures. On a lower one, the header has two lines.
_NARROW: Final = 76
_LOW: Final = 18
_MANY: Final = 1_000_000
_ELLIPSIS: Final = "\u2026"
_DOT: Final = " \u00b7 "

Cells = Sequence[str]


@dataclass(frozen=True, slots=True)
class _Section:
    """A table. It shows `least` rows even if there is little room."""

    columns: tuple[str, ...]
    rows: Sequence[Cells]
    least: int
    # The column of words takes the width that the figures leave. It loses its beginning or end.
    words: int
    cut_beginning: bool = False


def render(view: View, width: int, height: int | None, hint: str = "") -> RenderableType:
    """Return the drawing of a view.

    Parameters:
        view: the view to draw.
        width: columns of the terminal.
        height: rows of the terminal; None shows all rows.
        hint: the last line, such as the list of keys.
    """
    low = height is not None and height < _LOW
    head: list[RenderableType] = [*_header(view, width, low=low)]
    foot = [Text(hint, style="dim", no_wrap=True, overflow="crop")] if hint else []
    room = None if height is None else height - len(head) - len(foot)
    if width >= _SIDE_BY_SIDE:
        half = (width - _GAP) // 2
        left, right = _sections(view, half)
        columns = [
            _stacked(_fitted(left, room), half),
            _stacked(_fitted(right, room), width - _GAP - half),
        ]
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(width=half)
        grid.add_column(width=width - _GAP - half)
        grid.add_row(*columns)
        return Group(*head, grid, *foot)
    left, right = _sections(view, width)
    ordered = [*left[:1], *right[:1], *left[1:], *right[1:]]
    return Group(*head, _stacked(_fitted(ordered, room), width), *foot)


def _header(view: View, width: int, *, low: bool) -> list[Text]:
    """Return the lines above the sections; on a `low` terminal, only a few lines."""
    document = view.document
    datapath: dict[str, Any] = document.datapath or {}
    transport = datapath.get("transport", {}).get("kind", "dev")
    directories = datapath.get("directories", {})
    nodes = int(str(document.control["nodes"])) + int(directories.get("nodes", 0))
    files = int(str(document.control["open_files"])) + int(directories.get("open_files", 0))
    locked, budget = datapath.get("lock_budget", (0, 0))
    period = "since the mount" if view.since_mount else f"last {view.seconds:.1f} s"
    first = Text(no_wrap=True)
    first.append(escaped(document.mountpoint), style="bold")
    first.append(f"  shows {escaped(document.source)}")
    facts = [
        f"transport {transport}" if datapath else "naive: no data plane",
        f"up {_uptime(document.uptime_s)}",
        f"{nodes:,} nodes",
        f"{files:,} open",
        f"locked {size(locked)} of {size(budget)}",
        f"rates: {period}",
    ]
    if waiting := datapath.get("upcalls_out", 0):
        facts.append(f"{waiting:,} waiting for Python")
    if remotes := msgspec.convert(document.tree.get("remotes", {}), dict[str, dict[str, Any]]):
        fetched = sum(remote["fetched_bytes"] for remote in remotes.values())
        facts.append(f"fetched {size(fetched)}")
    first.truncate(width, overflow="ellipsis")
    lines = _lines(facts, width)
    return [first, lines[0]] if low else [first, *lines, Text()]


def _lines(facts: Sequence[str], width: int) -> list[Text]:
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(_DOT) + len(fact) <= width:
            lines[-1] += _DOT + fact
        else:
            lines.append(fact)
    return [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]


def _uptime(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days} d {hour:02}:{minute:02}" if days else f"{hour}:{minute:02}:{second:02}"


def _sections(view: View, width: int) -> tuple[list[_Section], list[_Section]]:
    """Return the sections for the left and the right side, or for top and bottom."""
    left = [_of_requests("operation", view.operations, 3, width)]
    if view.upcalls and view.document.datapath is not None:
        left.append(_of_requests("forwarded", view.upcalls, 1, width))
    right = [_of_paths(view.paths, width)]
    right.append(_of_files(view))
    right.append(
        _Section(
            ("times/s", "times", "fallback and reason"),
            [
                (_rate(row.rate), _count(row.total), escaped(reason_text(row.reason)))
                for row in view.fallbacks
            ],
            least=1,
            words=2,
        )
    )
    return [s for s in left if s.rows], [s for s in right if s.rows]


def _of_requests(name: str, rows: Sequence[Requests], least: int, width: int) -> _Section:
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    if width < _WIDE:
        del quantiles["p90"]
    cells = [
        (
            row.name,
            _rate(row.rate),
            _count(row.total),
            *(_time(row.latency, row.latency.quantile(share)) for share in quantiles.values()),
            _time(row.latency, row.latency.max_ns),
        )
        for row in rows
    ]
    columns = (name, "req/s", "total", *quantiles, "max")
    if width < _NARROW:
        columns = (name, "req/s", *quantiles, "max")
        cells = [(*row[:2], *row[3:]) for row in cells]
    return _Section(columns, cells, least, words=0)


def _of_paths(rows: Sequence[PathRow], width: int) -> _Section:
    cells = []
    for row in rows:
        unseen = row.reads is None
        figures: dict[str, str] = {
            "opens": "" if row.opens is None else _count(row.opens),
            "READ/s": "-" if unseen else _rate(row.read_rate),
            "READs": "-" if unseen else _count(row.reads or 0),
            "bytes/s": "-" if unseen else size(round(row.byte_rate)),
            "bytes": "-" if unseen else size(row.bytes),
            "p50": _time(row.latency, row.latency.quantile(0.5)),
            "p99": _time(row.latency, row.latency.quantile(0.99)),
        }
        cells.append((row.name, *figures.values()))
    columns: Cells = ("path", "opens", "READ/s", "READs", "bytes/s", "bytes", "p50", "p99")
    if width < _NARROW:
        kept = [columns.index(name) for name in ("path", "opens", "READ/s", "bytes/s", "p99")]
        columns = tuple(columns[at] for at in kept)
        cells = [tuple(row[at] for at in kept) for row in cells]
    return _Section(tuple(columns), cells, least=3, words=0)


def _of_files(view: View) -> _Section:
    unit: Callable[[float], str] = _rate if view.by == "requests" else _bytes
    heading = "req/s" if view.by == "requests" else "bytes/s"
    cells = [_file(row, unit) for row in view.files[:_MOST_FILES]]
    return _Section(
        (heading, "opens", "READs", "bytes", "hottest files"),
        cells,
        least=2,
        words=4,
        cut_beginning=True,
    )


def _file(row: FileRow, unit: Callable[[float], str]) -> Cells:
    file = row.file
    rate = "-" if row.rate is None else unit(row.rate)
    return rate, _count(file.opens), _count(file.reads), size(file.bytes), escaped(row.path)


def _fitted(sections: Sequence[_Section], room: int | None) -> list[_Section]:
    """Return the sections with as many rows as fit; each section also takes two other lines."""
    if room is None:
        return list(sections)
    # Each section has a heading and, except the first, an empty line. The last matter least.
    sections = sections[: max((room + 1) // 3, 1)]
    left = room - 2 * len(sections) + 1
    shares = [min(section.least, len(section.rows)) for section in sections]
    while sum(shares) > max(left, 0) and any(shares):
        at = max(i for i, share in enumerate(shares) if share == max(shares))
        shares[at] -= 1
    wants = [len(section.rows) for section in sections]
    while sum(shares) < left and shares != wants:
        at = min((i for i in range(len(wants)) if shares[i] < wants[i]), key=lambda i: shares[i])
        shares[at] += 1
    fitted = []
    for section, share in zip(sections, shares, strict=True):
        hidden = len(section.rows) - share
        name = section.columns[section.words]
        if hidden:
            name = f"{name} (+{hidden})"
        columns = tuple(name if i == section.words else c for i, c in enumerate(section.columns))
        rows = section.rows[:share]
        fitted.append(_Section(columns, rows, share, section.words, section.cut_beginning))
    return [section for section in fitted if section.rows]


def _stacked(sections: Sequence[_Section], width: int) -> RenderableType:
    parts: list[RenderableType] = []
    for section in sections:
        if parts:
            parts.append(Text())
        parts.append(_table(section, width))
    return Group(*parts)


def _table(section: _Section, width: int) -> Table:
    widths = [
        max(len(cell) for cell in column)
        for column in zip_longest(section.columns, *section.rows, fillvalue="")
    ]
    figures = sum(width for i, width in enumerate(widths) if i != section.words)
    words = max(width - figures - 2 * (len(widths) - 1), 8)
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold reverse", width=width
    )
    for i, name in enumerate(section.columns):
        is_words = i == section.words
        own = min(words, widths[i]) if i < len(widths) - 1 else words
        table.add_column(
            Text(name, no_wrap=True),
            justify="left" if is_words else "right",
            no_wrap=True,
            width=own if is_words else widths[i],
        )
    if section.words == 0:
        table.add_column(ratio=1)  # the heading is as wide as the others
    for row in section.rows:
        cells = [
            _cut(cell, words, beginning=section.cut_beginning) if i == section.words else cell
            for i, cell in enumerate(row)
        ]
        table.add_row(*(Text(cell, no_wrap=True) for cell in cells))
    return table


def _cut(text: str, width: int, *, beginning: bool) -> str:
    if len(text) <= width:
        return text
    return _ELLIPSIS + text[-(width - 1) :] if beginning else text[: width - 1] + _ELLIPSIS


def _time(latency: Latency, nanoseconds: int) -> str:
    return duration(nanoseconds) if latency.count else "-"


def _rate(rate: float) -> str:
    if rate == 0 or rate >= 9.95:
        return _count(round(rate))
    return f"{rate:.1f}" if rate >= 0.095 else "<0.1"


def _bytes(rate: float) -> str:
    return size(round(rate))


def _count(count: int) -> str:
    if count < _MANY:
        return f"{count:,}"
    amount = float(count)
    for unit in ("k", "M", "G"):
        amount /= 1000
        if amount < 9999.5 and unit != "k":
            break
    return f"{amount:,.1f}{unit}"
