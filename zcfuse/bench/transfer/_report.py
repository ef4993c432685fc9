"""A run from its beginning to its end, and all that it found."""

from typing import Any, Final

import msgspec

from zcfuse.bench._sources import SourceFile
from zcfuse.bench.transfer._cells import TransferCell
from zcfuse.bench.transfer._latency import ACCESSES, LatencyCell, run_latency
from zcfuse.bench.transfer._machine import Machine, describe_machine
from zcfuse.bench.transfer._run import Plan, Progress, started_run

FORMAT: Final = 1  # of the JSON document; counted up where a field changes its meaning
_PREFAULTING: Final = 2  # with and without


class TransferReport(msgspec.Struct, frozen=True):
    """What was measured where. Sizes are bytes; `unavailable` has a reason by column."""

    source: str
    size: int
    plan: Plan
    machine: Machine
    commands: dict[str, str]
    unavailable: dict[str, str]
    cells: tuple[TransferCell, ...]
    latency: tuple[LatencyCell, ...]
    note: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that are there, in the order that was asked for."""
        return [column for column in self.plan.columns if column not in self.unavailable]

    @property
    def differences(self) -> list[str]:
        """A line for each method whose receiver got other bytes than the file has."""
        lines = (
            f"{cell.method} to {cell.sink} from {cell.column}: the receiver got other bytes"
            for cell in self.cells
            if cell.identical is False
        )
        return list(dict.fromkeys(lines))

    def document(self) -> dict[str, Any]:
        """The report as plain values, with the figures of each cell beside its samples."""
        document: dict[str, Any] = {"format": FORMAT, **msgspec.to_builtins(self)}
        for name in ("cells", "latency"):
            for shown, cell in zip(document[name], getattr(self, name), strict=True):
                shown["figures"] = msgspec.to_builtins(cell.figures)
        return document


def steps_of(plan: Plan, latency: bool) -> int:
    """How often `run_transfer` will call its `progress`."""
    passes = len(plan.columns) * plan.rounds * len(ACCESSES) * _PREFAULTING if latency else 0
    return plan.steps + passes


def run_transfer(
    source: SourceFile, plan: Plan, latency: bool, progress: Progress
) -> TransferReport:
    """Check and measure all cells, and the latency where that is asked for.

    Raises `ClientError` where the file cannot be read or the receiver does not start; whatever else
    fails is a cell or a column with its reason. At the end, and after an interrupt, nothing is
    mounted and no process is left.
    """
    with started_run(source, plan) as (run, targets, unavailable):
        run.check(progress)
        for number in range(plan.rounds):
            run.run_round(number, progress)
        found = run_latency(run, source.size, plan.rounds, progress) if latency else ()
        progress("")
        names = {target.name: name for target, name in zip(targets, plan.columns, strict=True)}
        return TransferReport(
            source=source.path,
            size=source.size,
            plan=plan,
            machine=describe_machine(source.path),
            commands={names[t.name]: " ".join(t.argv) for t in targets if t.argv},
            unavailable={names[name]: reason for name, reason in unavailable.items()},
            cells=run.cells(),
            latency=found,
            note=source.note,
        )
