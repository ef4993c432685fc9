"""Prints what a mount has survived, for ``zcfuse status``."""

from __future__ import annotations

import time

from zcfuse.admin.status import StatusDocument, Survival
from zcfuse.cli._output import duration, print_pairs, print_table

_NS_PER_S = 1_000_000_000


def shown_processes(document: StatusDocument) -> str:
    """Return the ids of the processes behind a mount."""
    holder = document.processes.get("holder")
    return f"{document.pid}, holder {holder}" if holder else str(document.pid)


def print_survival(survival: Survival | None, most: int | None = None) -> None:
    """Print which daemon serves, and the last changes; at most `most` of them."""
    if survival is None:
        return
    print_pairs(
        "survives its daemon",
        {
            "generation": survival.generation,
            "restarts": survival.restarts,
            "requests sent again": survival.resent,
            "longest pause": _pause(survival.longest_pause_s),
        },
    )
    rows = [
        (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at)), one.cause, _pause(one.pause_s))
        for one in reversed(survival.last)
    ]
    if rows:
        print_table("its daemons", ("ended", "cause", "pause"), rows[:most])


def _pause(seconds: float) -> str:
    return duration(round(seconds * _NS_PER_S))
