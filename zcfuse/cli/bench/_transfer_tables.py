"""Prints the tables of ``zcfuse bench transfer``: two for each sink and cache state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import click

from zcfuse.bench.transfer import (
    CACHE_LABELS,
    METHODS,
    SINK_LABELS,
    LatencyCell,
    TransferCell,
    TransferReport,
)
from zcfuse.cli._output import print_cells, print_note, size

_LABELS: Final = {method.name: method.label for method in METHODS}
_FOOTNOTES: Final = (
    "Medians: the client's figure, then + and the daemon's. Copies are bytes that system calls "
    "copied for each byte delivered. Context switches are voluntary and involuntary, faults minor "
    "and major, all of one transfer. Memory is the growth of the resident set, with mapped pages "
    "of the file. All rounds, with their spread: --json."
)


def print_report(report: TransferReport) -> None:
    """Print the measured file and machine, all tables, and the reason of each missing figure."""
    machine = report.machine
    note = f" ({report.note})" if report.note else ""
    click.echo(
        f"{report.source}: {size(report.size)}{note} on {machine.filesystem}, "
        f"Linux {machine.kernel}, {machine.cpus} CPUs ({machine.cpu}), "
        f"{report.plan.rounds} rounds, {size(report.plan.block)} a call"
    )
    for sink in report.plan.sinks:
        for cache in report.plan.caches:
            _print_state(report, sink, cache)
    if report.latency:
        _print_latency(report)
    click.echo()
    print_note(_FOOTNOTES)
    _print_reasons(report)


def _print_state(report: TransferReport, sink: str, cache: str) -> None:
    cells = [cell for cell in report.cells if (cell.sink, cell.cache) == (sink, cache)]
    if not cells:
        return
    where = f"To {SINK_LABELS[sink]}, {cache}: {CACHE_LABELS[cache]}"
    _print_table(f"\n{where}\nGB/s, CPU s per GB, copies per byte", cells, _costs)
    _print_table("\nContext switches, page faults minor/major, MiB of memory", cells, _events)


def _print_table(
    title: str, cells: list[TransferCell], shown: Callable[[TransferCell], str]
) -> None:
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        found = {cell.column: cell for cell in cells if cell.method == method}
        rows.append([_LABELS[method], *(_shown(found[column], shown) for column in columns)])
    click.echo(title)
    print_cells("", ["", *columns], rows, frozenset({0}))


def _shown(cell: TransferCell, shown: Callable[[TransferCell], str]) -> str:
    return shown(cell) if cell.samples else cell.short_reason


def _costs(cell: TransferCell) -> str:
    cpu = _sides(cell, "{:.2f}", "cpu_s_per_gb")
    copies = _sides(cell, "{:.0f}", "copies_per_byte")
    return f"{cell.figures['gb_per_s'].median:.2f}  {cpu}  {copies}"


def _events(cell: TransferCell) -> str:
    switches = _sides(cell, "{:,.0f}", "voluntary_switches", "involuntary_switches")
    minor = _sides(cell, "{:,.0f}", "minor_faults")
    major = _sides(cell, "{:,.0f}", "major_faults")
    memory = _sides(cell, "{:,.0f}", "resident_rise", unit=1 << 20)
    return f"{switches}  {minor}/{major}  {memory}"


def _sides(cell: TransferCell, form: str, *names: str, unit: int = 1) -> str:
    """Return the sum of some quantities as text, for the client and the daemon, if any."""
    figures = cell.figures
    sides = ("client", "daemon") if cell.samples[0].daemon else ("client",)
    return "+".join(
        form.format(sum(figures[f"{side}_{name}"].median for name in names) / unit)
        for side in sides
    )


def _print_latency(report: TransferReport) -> None:
    click.echo("\nReads of 4 KiB, warm, in microseconds (the highest of all rounds under max)")
    columns = ["", "access", "memory", "p50", "p99", "p99.9", "max", "faults"]
    rows = [_latency_row(cell) for cell in report.latency]
    print_cells("", columns, rows, frozenset({0, 1, 2}))


def _latency_row(cell: LatencyCell) -> list[str]:
    memory = "prefaulted, locked" if cell.prefaulted else "untouched"
    figures = cell.figures
    if not figures:
        return [cell.column, cell.access, memory, *["-"] * 4, cell.reason]
    percentiles = [figures[name].median / 1000 for name in ("p50_ns", "p99_ns", "p999_ns")]
    return [
        cell.column,
        cell.access,
        memory,
        *(f"{value:.2f}" for value in percentiles),
        f"{figures['max_ns'].most / 1000:.0f}",
        f"{figures['minor_faults'].median + figures['major_faults'].median:,.0f}",
    ]


def _print_reasons(report: TransferReport) -> None:
    for column, reason in report.unavailable.items():
        click.echo(f"{column}: {reason}")
    lines: dict[str, list[str]] = {}
    for cell in report.cells:
        for text in [cell.reason] if cell.reason else cell.notes:
            lines.setdefault(f"{cell.method} to {cell.sink}: {text}", []).append(cell.column)
    for line, columns in lines.items():
        found = list(dict.fromkeys(columns))
        whose = "" if len(found) == len(report.columns) else f" ({', '.join(found)})"
        click.echo(f"{line}{whose}")
