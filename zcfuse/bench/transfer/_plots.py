"""The figures of a report, by matplotlib (the extra `plots`), as SVG or PNG, light or dark.

Other modules import this one only to draw a figure, so matplotlib may be missing.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullLocator

from zcfuse.bench.transfer._cells import Figure, TransferCell
from zcfuse.bench.transfer._latency import ACCESSES, PERCENTILES, LatencyCell
from zcfuse.bench.transfer._methods import METHODS, SINK_LABELS
from zcfuse.bench.transfer._report import TransferReport

_LABELS: Final = {method.name: method.label for method in METHODS}
# Colours of medium lightness are legible on white and on black; markers differ too.
_COLUMNS: Final = {
    "backing": ("#8a8a8a", "D"),
    "naive": ("#d1495b", "v"),
    "pool": ("#d9861a", "^"),
    "mmap": ("#2a9d6f", "s"),
    "splice": ("#3a86d8", "o"),
    "passthrough": ("#9b5de5", "P"),
}
_CLIENT: Final = "#3a86d8"
_DAEMON: Final = "#d9861a"
_PERCENTILE_MARKS: Final = dict(
    zip(PERCENTILES, (("p50", "o"), ("p99", "s"), ("p99.9", "D"), ("max", "|")), strict=True)
)
_ROW_INCHES: Final = 0.42
_FRAME_INCHES: Final = 1.5
_WIDTH_INCHES: Final = 11.0
_PHONE_INCHES: Final = 4.4  # a phone's width at which 9 points are legible
_LEGEND_COLUMNS: Final = 3  # on a phone
_DPI: Final = 110
_TICKS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_TICKS_US: Final = tuple(10.0**power for power in range(-1, 6))


class Theme(msgspec.Struct, frozen=True):
    """The colours of everything except data, and whether panels are below one another."""

    name: str
    ink: str
    grid: str
    paper: str
    phone: bool = False


LIGHT: Final = Theme("light", "#1d1d1f", "#d8d8dc", "#ffffff")
DARK: Final = Theme("dark", "#ececf0", "#3c3c42", "#161618")
# Unique colours that `svg()` replaces by the page's.
_PAGE: Final = Theme("page", "#010203", "#040506", "none")
_PHONE: Final = Theme("phone", "#010203", "#040506", "none", phone=True)


class Plot(msgspec.Struct, frozen=True):
    """A figure drawn on demand; `name` is a file name."""

    name: str
    title: str
    draw: Callable[[Theme], Canvas]


def plots_of(report: TransferReport) -> Iterator[Plot]:
    """All figures that a report has data for."""
    for sink in report.plan.sinks:
        cells = [cell for cell in report.cells if cell.sink == sink and cell.samples]
        if not cells:
            continue
        title = f"Throughput to {SINK_LABELS[sink]}"
        yield Plot(f"speed-{sink}", title, _drawing(_speed, cells, title))
        for cache in report.plan.caches:
            chosen = [cell for cell in cells if cell.cache == cache]
            if chosen:
                title = f"CPU seconds per GB to {SINK_LABELS[sink]}, {cache}"
                yield Plot(f"cpu-{sink}-{cache}", title, _drawing(_cpu, chosen, title))
    timed = [cell for cell in report.latency if cell.samples]
    if timed:
        title = "Latency of reads of 4 KiB, warm"
        yield Plot("latency", title, lambda theme: _latency(theme, timed, title))


def png(plot: Plot, theme: Theme) -> bytes:
    """A figure as PNG."""
    return _saved(plot, theme, "png")


def svg(plot: Plot, *, phone: bool = False) -> str:
    """A figure as an SVG element for an HTML page, in the colours of the text around it."""
    text = _saved(plot, _PHONE if phone else _PAGE, "svg").decode()
    text = text[text.index("<svg") :]
    text = text.replace(_PAGE.ink, "currentColor").replace(_PAGE.grid, "var(--grid)")
    return text.replace("<svg", f'<svg role="img" aria-label="{plot.title}"', 1)


def _saved(plot: Plot, theme: Theme, kind: str) -> bytes:
    settings: dict[Any, Any] = {
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": "none",
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.grid,
        "font.size": 9.0,
        # Otherwise two figures of one page share element names.
        "svg.hashsalt": f"{plot.name} {theme.name}",
    }
    stream = io.BytesIO()
    with rc_context(settings):
        canvas = plot.draw(theme)
        # Without a date, equal reports give equal bytes.
        canvas.savefig(
            stream,
            format=kind,
            dpi=_DPI,
            facecolor=theme.paper,
            metadata={"Date": None} if kind == "svg" else None,
        )
    return stream.getvalue()


def _drawing(
    draw: Callable[[Theme, Sequence[TransferCell], str], Canvas],
    cells: Sequence[TransferCell],
    title: str,
) -> Callable[[Theme], Canvas]:
    return lambda theme: draw(theme, cells, title)


def _panels(
    theme: Theme, names: Sequence[str], rows: Sequence[str], title: str
) -> tuple[Canvas, list[Axes]]:
    """A canvas with one panel per name, all with the same rows, the first row on top."""
    height = _FRAME_INCHES + _ROW_INCHES * max(len(rows), 3)
    size = (_PHONE_INCHES, height * len(names)) if theme.phone else (_WIDTH_INCHES, height)
    canvas = Canvas(figsize=size, layout="constrained")
    canvas.suptitle(title, fontweight="bold", wrap=True)
    shape = (len(names), 1) if theme.phone else (1, len(names))
    made = canvas.subplots(*shape, sharey=True, squeeze=False)
    panels = list(made.flat)
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name, fontsize=9)
        panel.set_yticks(range(len(rows)), rows)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.grid(axis="x", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    return canvas, panels


def _logarithmic(panel: Axes, ticks: Sequence[float], least: float, most: float) -> None:
    panel.set_xscale("log")
    shown = [tick for tick in ticks if least / 1.5 <= tick <= most * 1.5]
    panel.set_xlim(min([least, *shown]) / 1.15, max([most, *shown]) * 1.15)
    panel.set_xticks(shown)
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def _legend(theme: Theme, canvas: Canvas, handles: Sequence[Line2D | Patch]) -> None:
    columns = min(len(handles), _LEGEND_COLUMNS) if theme.phone else len(handles)
    canvas.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False)


def _speed(theme: Theme, cells: Sequence[TransferCell], title: str) -> Canvas:
    """Median and spread of each method: one mark per column, one panel per cache state."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    caches = list(dict.fromkeys(cell.cache for cell in cells))
    canvas, panels = _panels(theme, caches, [_LABELS[method] for method in methods], title)
    found = [cell.figures["gb_per_s"] for cell in cells]
    least, most = min(one.least for one in found), max(one.most for one in found)
    for cell in cells:
        column = columns.index(cell.column)
        # Offset within the row, so that marks do not overlap.
        at = methods.index(cell.method) + (column - (len(columns) - 1) / 2) * 0.13
        _mark(panels[caches.index(cell.cache)], cell.figures["gb_per_s"], at, cell.column)
    for panel in panels:
        panel.set_xlabel("GB/s")
        panel.hlines(
            [row + 0.5 for row in range(len(methods) - 1)],
            0,
            1,
            transform=panel.get_yaxis_transform(),
            colors=theme.grid,
            linewidth=0.4,
        )
        _logarithmic(panel, _TICKS, least, most)
    _legend(theme, canvas, [_handle(column) for column in columns])
    return canvas


def _mark(panel: Axes, figure: Figure, at: float, column: str) -> None:
    colour, marker = _COLUMNS[column]
    panel.plot([figure.least, figure.most], [at, at], color=colour, linewidth=1.2)
    panel.plot([figure.median], [at], color=colour, marker=marker, markersize=4, linestyle="")


def _handle(column: str) -> Line2D:
    colour, marker = _COLUMNS[column]
    return Line2D([], [], color=colour, marker=marker, markersize=5, label=column)


def _cpu(theme: Theme, cells: Sequence[TransferCell], title: str) -> Canvas:
    """The client's and the daemon's time in one bar, one panel per column."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    canvas, panels = _panels(theme, columns, [_LABELS[method] for method in methods], title)
    most = 0.0
    for cell in cells:
        client = cell.figures["client_cpu_s_per_gb"].median
        daemon = cell.figures["daemon_cpu_s_per_gb"].median
        panel, row = panels[columns.index(cell.column)], methods.index(cell.method)
        panel.barh(row, client, height=0.6, color=_CLIENT)
        panel.barh(row, daemon, left=client, height=0.6, color=_DAEMON)
        panel.annotate(
            f"{client + daemon:.2f}", (client + daemon, row), (3, 0),
            textcoords="offset points", va="center", fontsize=7, color=theme.ink,
        )  # fmt: skip
        most = max(most, client + daemon)
    for panel in panels:
        panel.set_xlim(0, most * 1.3)
        panel.set_xlabel("s per GB")
    _legend(
        theme, canvas, [Patch(color=_CLIENT, label="client"), Patch(color=_DAEMON, label="daemon")]
    )
    return canvas


def _latency(theme: Theme, cells: Sequence[LatencyCell], title: str) -> Canvas:
    """Four percentiles per row, one row per column and kind of memory."""
    keys = list(dict.fromkeys((cell.column, cell.prefaulted) for cell in cells))
    rows = [f"{column}, {'prefaulted' if done else 'untouched'}" for column, done in keys]
    accesses = [access for access in ACCESSES if any(cell.access == access for cell in cells)]
    canvas, panels = _panels(theme, accesses, rows, title)
    reached = [
        getattr(figure, bound) / 1000
        for cell in cells
        for figure, bound in ((cell.figures["p50_ns"], "least"), (cell.figures["max_ns"], "most"))
    ]
    for cell in cells:
        panel = panels[accesses.index(cell.access)]
        _percentiles(panel, cell, keys.index((cell.column, cell.prefaulted)))
    for panel in panels:
        panel.set_xlabel("microseconds")
        _logarithmic(panel, _TICKS_US, min(reached), max(reached))
    marks = [
        Line2D([], [], color=theme.ink, marker=marker, linestyle="", markersize=5, label=label)
        for label, marker in _PERCENTILE_MARKS.values()
    ]
    _legend(theme, canvas, marks)
    return canvas


def _percentiles(panel: Axes, cell: LatencyCell, row: int) -> None:
    colour, _ = _COLUMNS[cell.column]
    figures = cell.figures
    values = [
        (figures[name].most if name == "max_ns" else figures[name].median) / 1000
        for name in PERCENTILES
    ]
    width = 2.2 if cell.prefaulted else 1.0
    panel.plot(values, [row] * len(values), color=colour, linewidth=width)
    for value, name in zip(values, PERCENTILES, strict=True):
        _, marker = _PERCENTILE_MARKS[name]
        size = 9 if marker == "|" else 4.5
        panel.plot([value], [row], color=colour, marker=marker, markersize=size, linestyle="")
