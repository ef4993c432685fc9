"""``zcfuse bench --remote``: measures mounts of a temporary bucket."""

from __future__ import annotations

import tempfile
from typing import Final

import click

from zcfuse.bench.remote import ROWS, RemoteReport, run_remote, serving
from zcfuse.cli._figures import progress, unmounting_when_ended
from zcfuse.cli._output import print_cells, print_json, size

_SIZE: Final = 128 << 20
_SMALL: Final = 32
_KEYS: Final = 100_000
_TARGETS: Final = 6


def measure_remote(rounds: int, *, peers: bool, as_json: bool) -> None:
    """Measure and print. Raises SourceError without nginx."""
    with (
        unmounting_when_ended(),
        tempfile.TemporaryDirectory(prefix="zcfuse-") as base,
        serving(base, _SIZE, _SMALL, _KEYS) as bucket,
        progress(rounds * _TARGETS) as step,
    ):
        report = run_remote(bucket, _SIZE, rounds, peers, step)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: RemoteReport) -> None:
    click.echo(
        f"S3 by nginx on loopback, objects of {size(report.size)}, {report.keys:,} keys,"
        f" {report.rounds} rounds\n"
    )
    rows = [
        [row.name, *(_figure(row.median(target)) for target in report.targets)]
        for row in report.rows
    ]
    assert len(rows) == len(ROWS)
    print_cells("", ["", *report.targets], rows, frozenset({0}))
    for name, reason in report.unavailable.items():
        click.echo(f"{name}: {reason}")


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.1f}"
