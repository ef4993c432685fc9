"""``zcfuse copies``: reads the same bytes by every serving path and counts the costs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec

from zcfuse.bench import (
    CASES,
    Case,
    ClientError,
    Report,
    Row,
    SourceError,
    existing_file,
    run_copies,
    temporary_file,
)
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli._figures import progress, unmounting_when_ended
from zcfuse.cli._output import json_option, print_cells, print_json, print_note, size
from zcfuse.cli._parameters import Size

_COLUMNS: Final = (
    "path",
    "GB/s",
    "x naive",
    "copies/byte\nledger",
    "copies/byte\nkernel",
    "READs\nledger",
    "READs\nkernel",
    "requests\nkernel",
    "system\ncalls",
    "faults\nfirst",
    "faults\nwarm",
    "context\nswitches",
    "CPU s\nper GB",
    "cached\ntwice",
    "note",
)
_MODEL_COLUMNS: Final = (
    "path",
    "daemon\n(measured)",
    "kernel,\npipe to page",
    "client\nreads: all",
    "client\nmaps: all",
)
_FOOTNOTES: Final = (
    "Each figure counts one reading of the file. Faults are those of the serving threads, in the "
    "first reading and in a later one. Copies by the kernel come from /proc/PID/io, which leaves "
    "out recv (under upcall recv copies each byte once). System calls are those of all threads "
    "of the daemon (raw_syscalls:sys_enter), or the ledger's own (~) without that tracepoint."
)


@click.command()
@click.option(
    "--source",
    metavar="FILE",
    shell_complete=_completion.files,
    help="Read this file instead of a temporary one.",
)
@click.option(
    "--size", "wanted", type=Size(), metavar="BYTES", help="[default: 1G, or all of FILE]"
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Readings counted."
)
@click.option(
    "--path",
    "names",
    multiple=True,
    metavar="P",
    help="Only this row (more than once for several).",
)
@json_option
def copies(
    source: str | None, wanted: int | None, rounds: int, names: tuple[str, ...], as_json: bool
) -> int:
    """Mount by every serving path, read the same bytes, and count the costs of each path.

    The bytes are compared on every path, and the daemon's own count of copies with the kernel's: a
    difference is an error (exit status 1). A path that this machine does not have is a row with its
    reason.
    """
    if wanted is not None and wanted <= 0:
        raise CommandError("--size: give at least one byte", usage=True)
    cases = _chosen(names)
    with unmounting_when_ended():
        report = _measured(source, wanted, rounds, cases)
    if as_json:
        print_json(report_document(report))
    else:
        _print(report)
    lines = _failures(report)
    if lines:
        raise CommandError("; ".join(lines))
    return 0


def _chosen(names: Sequence[str]) -> Sequence[Case]:
    unknown = set(names) - {case.path for case in CASES}
    if unknown:
        known = ", ".join(dict.fromkeys(case.path for case in CASES))
        raise CommandError(f"--path {unknown.pop()}: choose one of {known}", usage=True)
    return [case for case in CASES if not names or case.path in names]


def _measured(source: str | None, wanted: int | None, rounds: int, cases: Sequence[Case]) -> Report:
    try:
        with contextlib.ExitStack() as stack:
            step = stack.enter_context(progress(len(cases) + 2))
            step("preparing the file")
            opened = existing_file(source, wanted) if source else temporary_file(wanted)
            return run_copies(stack.enter_context(opened), rounds, step, cases)
    except SourceError as error:
        raise CommandError(str(error), usage=source is not None) from error
    except ClientError as error:
        raise CommandError(f"{source or 'the temporary file'}: {error}") from error


def _failures(report: Report) -> list[str]:
    lines = []
    for row in report.rows:
        if row.identical is False:
            lines.append(f"{row.name}: the bytes differ from those of the backing file")
        lines.extend(f"{row.name}: {difference}" for difference in row.differences)
    return lines


def report_document(report: Report) -> dict[str, Any]:
    """Return the report as plain values, with the sums that the tables show."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    for shown, row in zip(document["rows"], report.rows, strict=True):
        if row.counted is not None:
            shown["counted"]["ledger_copies"] = row.counted.ledger_copies
            shown["counted"]["audit_copies"] = row.counted.audit_copies
        if row.model is not None:
            shown["model"]["client_reads"] = row.model.client_reads
            shown["model"]["client_maps"] = row.model.client_maps
    return document


def _print(report: Report) -> None:
    note = f" ({report.note})" if report.note else ""
    click.echo(
        f"{report.source}: {size(report.size)}{note}, median of {report.rounds}, "
        f"Linux {report.kernel}\n"
    )
    naive = next((row.speed for row in report.rows if row.name == "naive"), None)
    baseline = naive.median if naive is not None else None
    common = _common_notes(report)
    rows = [_cells(row, baseline, common) for row in report.rows]
    # Without notes the last column would be empty.
    shown = len(_COLUMNS) if any(row[-1] for row in rows) else len(_COLUMNS) - 1
    cells = [row[:shown] for row in rows]
    print_cells("", _COLUMNS[:shown], cells, frozenset({0, len(_COLUMNS) - 1}))
    click.echo()
    print_note(_FOOTNOTES)
    for note in sorted(common):
        print_note(note)
    click.echo()
    _print_model(report)


def _common_notes(report: Report) -> frozenset[str]:
    """Return the notes that hold for every measured path; they appear once, below the table."""
    notes = [set(row.notes) for row in report.rows if row.counted is not None]
    return frozenset(set.intersection(*notes)) if len(notes) > 1 else frozenset()


def _cells(row: Row, baseline: float | None, common: frozenset[str]) -> list[str]:
    if row.speed is None:
        return [row.name, *["-"] * (len(_COLUMNS) - 2), row.reason]
    ratio = f"{row.speed.median / baseline:.2f}" if baseline else "-"
    speed = [row.name, f"{row.speed.median:.2f}", ratio]
    return [*speed, *_counts(row), "; ".join(_notes(row, common))]


def _counts(row: Row) -> list[str]:
    counted = row.counted
    if counted is None:
        return ["-"] * (len(_COLUMNS) - 4)
    calls = counted.system_calls
    return [
        f"{counted.ledger_copies:.3f}",
        f"{counted.audit_copies:.3f}",
        _whole(counted.ledger_reads),
        _whole(counted.kernel_reads),
        _whole(counted.kernel_requests),
        _whole(calls) if calls is not None else f"~{_whole(counted.ledger_calls)}",
        _whole(counted.first_faults),
        _whole(counted.faults),
        _whole(counted.switches),
        f"{counted.cpu_s_per_gb:.3f}",
        size(counted.cached_twice) if counted.cached_twice is not None else "-",
    ]


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _notes(row: Row, common: frozenset[str]) -> list[str]:
    notes = ["BYTES DIFFER"] if row.identical is False else []
    if row.differences:
        notes.append("ledger and kernel disagree")
    return [*notes, *(note for note in row.notes if note not in common)]


def _print_model(report: Report) -> None:
    models = [report.classic, *(row.model for row in report.rows if row.model is not None)]
    rows = [
        [
            model.path if model.measured else f"{model.path} (from the literature)",
            f"{model.user_space:.2f}",
            f"{model.in_kernel:.0f}",
            f"{model.client_reads:.2f}",
            f"{model.client_maps:.2f}",
        ]
        for model in models
    ]
    print_cells(
        "Copies of each byte on its way to the client", _MODEL_COLUMNS, rows, frozenset({0})
    )
    served = [model for model in models[1:] if model.path != "native"]
    if not served:
        return
    best = min(served, key=lambda model: model.client_maps)
    click.echo()
    print_note(
        f"{report.classic.client_reads:.0f} copies (classic FUSE, a client that reads) become "
        f"{_number(best.client_maps)} ({best.path}, a client that maps)."
    )


def _number(copies: float) -> str:
    words = {0: "none", 1: "one", 2: "two"}
    return words.get(round(copies), f"{copies:.1f}")
