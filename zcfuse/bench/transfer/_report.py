"""A complete run and its results."""

from typing import Any, Final

import msgspec

from zcfuse.bench._sources import SourceFile
from zcfuse.bench.transfer._cells import TransferCell
from zcfuse.bench.transfer._column import target_of
from zcfuse.bench.transfer._latency import LatencyCell
from zcfuse.bench.transfer._machine import Machine, describe_machine
from zcfuse.bench.transfer._run import Plan, Progress, started_run

FORMAT: Final = 1  # of the JSON document; increases when a field changes its meaning


class TransferReport(msgspec.Struct, frozen=True):
    """The results and their conditions. Sizes are bytes; `unavailable` has a reason per column."""

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
        """The available columns, in the requested order."""
        return [column for column in self.plan.columns if column not in self.unavailable]

    @property
    def differences(self) -> list[str]:
        """One line per method whose receiver got bytes that differ from the file's."""
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


def steps_of(plan: Plan) -> int:
    """How often `run_transfer` calls `progress` if everything is available."""
    visits = len(plan.columns) * plan.rounds
    return plan.steps + visits * (2 if plan.latency else 1)


def run_transfer(source: SourceFile, plan: Plan, progress: Progress) -> TransferReport:
    """Check and measure all cells of a plan.

    Raises `ClientError` if the file cannot be read or the receiver does not start. Any other
    failure is a cell or a column with its reason. At the end, and after an interrupt, no mount and
    no process remains.
    """
    with started_run(source, plan) as run:
        for number in range(plan.rounds):
            run.run_round(number, progress)
        progress("")
        return TransferReport(
            source=source.path,
            size=source.size,
            plan=plan,
            machine=describe_machine(source.path),
            commands=_commands(source, plan),
            unavailable=run.unavailable,
            cells=run.cells(),
            latency=run.latency.cells(),
            note=source.note,
        )


def _commands(source: SourceFile, plan: Plan) -> dict[str, str]:
    targets = ((column, target_of(column, source)) for column in plan.columns)
    return {column: " ".join(target.argv) for column, target in targets if target.argv}
