"""A report as one self-contained HTML page: plots, tables, and the machine."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from typing import Final

from zcfuse.bench.transfer._cells import Figure, TransferCell
from zcfuse.bench.transfer._latency import LatencyCell
from zcfuse.bench.transfer._methods import CACHE_LABELS, METHODS, SINK_LABELS
from zcfuse.bench.transfer._plots import Plot, plots_of, svg
from zcfuse.bench.transfer._report import TransferReport

_LABELS: Final = {method.name: method.label for method in METHODS}
_MIB: Final = 1 << 20
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --grid: #d8d8dc; --soft: #63636b }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --paper: #161618; --grid: #3c3c42; --soft: #a2a2ac }
}
body { margin: 0 auto; padding: 1rem; max-width: 82rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
svg { display: block; width: 100%; height: auto }
.phone { display: none }
@media (max-width: 46rem) { .desk { display: none } .phone { display: block } }
.wide { overflow-x: auto; margin: 0.5rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: 0.35rem 0.8rem 0.35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid) }
.figures td { font-size: 0.78rem; line-height: 1.45; min-width: 10.2rem }
.spread { white-space: nowrap }
.figures td b { font-size: 0.95rem }
.figures th { font-size: 0.85rem }
.spread, .note { color: var(--soft) }
details { margin: 0.75rem 0 } summary { cursor: pointer; font-weight: 600 }
code { overflow-wrap: anywhere }
"""
_READING = """
Figures are medians over the rounds, with minimum and maximum in a softer colour. The client's
figure stands before a plus, the daemon's after it. Copies are bytes that system calls copied per
byte delivered: sums of return values for the client, counts of /proc/PID/io for the daemon.
Switches, faults and memory belong to one transfer of the whole size; memory is the growth of the
resident set, including mapped pages of the file.
"""


def html_of(report: TransferReport) -> str:
    """Return the page. Raises `ImportError` if matplotlib is not installed."""
    plots = {plot.name: plot for plot in plots_of(report)}
    title = f"Ways to move the bytes of {escape(os.path.basename(report.source))}"
    body = "\n".join(
        [
            f"<h1>{title}</h1>",
            _summary(report),
            _machine(report),
            f"<p>{_READING.strip()}</p>",
            *(_sink(report, sink, plots) for sink in report.plan.sinks),
            _latency(report.latency, plots),
            _reasons(report),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(report: TransferReport) -> str:
    """The fastest method from each column, to each receiver: the first thing to know."""
    rows = []
    for sink in report.plan.sinks:
        cells = [cell for cell in report.cells if cell.sink == sink and cell.samples]
        for cache in report.plan.caches:
            found = [_fastest(cells, column, cache) for column in report.columns]
            if any(found):
                rows.append([f"{SINK_LABELS[sink]}, {cache}", *found])
    if not rows:
        return "<p>Nothing was measured; the reasons are at the end.</p>"
    where = (
        f"{escape(report.source)} on {escape(report.machine.filesystem)},"
        f" Linux {escape(report.machine.kernel)}"
    )
    return f"<p>The fastest method for each serving path: {where}.</p>" + _table(
        ["", *report.columns], rows
    )


def _fastest(cells: Sequence[TransferCell], column: str, cache: str) -> str:
    of_column = [cell for cell in cells if (cell.column, cell.cache) == (column, cache)]
    if not of_column:
        return ""
    best = max(of_column, key=lambda cell: cell.figures["gb_per_s"].median)
    speed = best.figures["gb_per_s"].median
    return f"<b>{speed:.2f}</b> GB/s<br>{escape(_LABELS[best.method])}"


def _machine(report: TransferReport) -> str:
    machine, plan = report.machine, report.plan
    pairs = {
        "kernel": f"Linux {machine.kernel}, {machine.architecture}",
        "processors": f"{machine.cpus} of {machine.cpu}",
        "memory": f"{machine.memory >> 20:,} MiB",
        "filesystem": machine.filesystem,
        "versions": ", ".join(f"{name} {text}" for name, text in machine.versions.items()),
        "moved": f"{report.size / _MIB:,.1f} MiB per transfer, {plan.block >> 10:,} KiB per call",
        "rounds": str(plan.rounds),
        **{f"cache {cache}": CACHE_LABELS[cache] for cache in plan.caches},
    }
    settings = _pairs(machine.settings)
    commands = _pairs(report.commands)
    return (
        f"{_pairs(pairs)}"
        f"<details><summary>Kernel settings and mounts</summary>{settings}{commands}</details>"
    )


def _pairs(pairs: dict[str, str]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th><td><code>{escape(value)}</code></td></tr>"
        for name, value in pairs.items()
    )
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _plot(plots: dict[str, Plot], name: str) -> str:
    found = plots.get(name)
    if not found:
        return ""
    return f'<div class="desk">{svg(found)}</div><div class="phone">{svg(found, phone=True)}</div>'


def _sink(report: TransferReport, sink: str, plots: dict[str, Plot]) -> str:
    parts = [f"<h2>To {SINK_LABELS[sink]}</h2>", _plot(plots, f"speed-{sink}")]
    for cache in report.plan.caches:
        cells = [cell for cell in report.cells if (cell.sink, cell.cache) == (sink, cache)]
        if cells:
            parts += [_plot(plots, f"cpu-{sink}-{cache}"), _state(cells, cache)]
    return "\n".join(parts) if len(parts) > 2 else ""


def _state(cells: Sequence[TransferCell], cache: str) -> str:
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        found = {cell.column: cell for cell in cells if cell.method == method}
        rows.append([escape(_LABELS[method]), *(_cell(found[column]) for column in columns)])
    return (
        f"<details open><summary>All figures, {cache}: {CACHE_LABELS[cache]}</summary>"
        f"{_table(['', *columns], rows)}</details>"
    )


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="wide"><table class="figures"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: TransferCell) -> str:
    if not cell.samples:
        return f'<b>{escape(cell.short_reason)}</b><br><span class="note">see below</span>'
    speed = _spread(cell.figures["gb_per_s"], lambda value: f"{value:.2f}")
    median, _, rest = speed.partition(" ")
    return "<br>".join([f"<b>{median}</b> GB/s {rest}", *_lines(cell)])


def _lines(cell: TransferCell) -> Iterator[str]:
    sides = ("client", "daemon") if cell.samples[0].daemon else ("client",)

    def line(text: str, name: str, form: Callable[[float], str]) -> str:
        return text.format(_shown([cell.figures[f"{side}_{name}"] for side in sides], form))

    def whole(value: float) -> str:
        return f"{value:,.0f}"

    yield line("CPU s/GB {}", "cpu_s_per_gb", lambda value: f"{value:.2f}")
    yield line("copies {}", "copies_per_byte", lambda value: f"{value:.2f}".rstrip("0").rstrip("."))
    yield line("voluntary switches {}", "voluntary_switches", whole)
    yield line("involuntary {}", "involuntary_switches", whole)
    yield line("minor faults {}", "minor_faults", whole)
    yield line("major faults {}", "major_faults", whole)
    yield line("memory, MiB {}", "resident_rise", lambda value: whole(value / _MIB))


def _shown(figures: Sequence[Figure], form: Callable[[float], str]) -> str:
    """Medians joined by a plus, each with its spread if the rounds differ."""
    return " + ".join(_spread(figure, form) for figure in figures)


def _spread(figure: Figure, form: Callable[[float], str]) -> str:
    median, least, most = form(figure.median), form(figure.least), form(figure.most)
    if least == most:
        return median
    return f'{median} <span class="spread">{least}\u2013{most}</span>'


def _latency(cells: Sequence[LatencyCell], plots: dict[str, Plot]) -> str:
    if not cells:
        return ""
    columns = ["", "access", "memory", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "page faults"]
    return (
        "<h2>Reads of 4 KiB</h2><p>The client reads each page of the file's start once, in random"
        " order, with warm page caches: by pread into memory, or by copying out of a mapping."
        " Prefaulted memory was populated (MADV_POPULATE) and locked (mlock) first.</p>"
        f"{_plot(plots, 'latency')}{_table(columns, map(_latency_row, cells))}"
    )


def _latency_row(cell: LatencyCell) -> list[str]:
    row = [cell.column, cell.access, "prefaulted, locked" if cell.prefaulted else "untouched"]
    figures = cell.figures
    if not figures:
        return [*row, escape(cell.reason), "", "", "", ""]
    names = ("p50_ns", "p99_ns", "p999_ns", "max_ns")
    row += [_shown([figures[name]], lambda value: f"{value / 1000:,.2f}") for name in names]
    return [*row, _shown([figures["minor_faults"]], lambda value: f"{value:,.0f}")]


def _reasons(report: TransferReport) -> str:
    lines = {f"{column}: {reason}": None for column, reason in report.unavailable.items()}
    for cell in report.cells:
        where = f"{_LABELS[cell.method]} to {SINK_LABELS[cell.sink]}, {cell.column}"
        for text in [cell.reason] if cell.reason else cell.notes:
            lines[f"{where}: {text}"] = None
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return (
        "<h2>Reasons and notes</h2><details><summary>Unavailable cells and deviations"
        f" ({len(lines)})</summary><ul>{items}</ul></details>"
    )
