"""Keeps a mount alive over the death of its daemon (``zcfuse mount --survive``), or of a program.

A holder, a small native process, is the parent of each daemon of the mount, of which one serves and
one waits warm. `Link` is a daemon's connection to it, `DaemonSurvival` what a daemon keeps there,
`Plan` what every daemon is started with. A program has a holder that starts nobody:
`ProgramSurvival` is its part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.control.survive._launch import run_under_holder as run_under_holder
    from zcfuse.control.survive._launch import start_under_holder as start_under_holder
    from zcfuse.control.survive._link import Handover as Handover
    from zcfuse.control.survive._link import HolderRefusedError as HolderRefusedError
    from zcfuse.control.survive._link import Link as Link
    from zcfuse.control.survive._link import Takeover as Takeover
    from zcfuse.control.survive._plan import PLAN_AT as PLAN_AT
    from zcfuse.control.survive._plan import REPORT_AT as REPORT_AT
    from zcfuse.control.survive._plan import SOCKET_AT as SOCKET_AT
    from zcfuse.control.survive._plan import Plan as Plan
    from zcfuse.control.survive._program import ProgramSurvival as ProgramSurvival
    from zcfuse.control.survive._program import start_holder as start_holder
    from zcfuse.control.survive._program import take_from_holder as take_from_holder
    from zcfuse.control.survive._survival import DaemonSurvival as DaemonSurvival
    from zcfuse.control.survive._survival import Survival as Survival
    from zcfuse.control.survive._survival import UnmountedError as UnmountedError
    from zcfuse.control.survive._survival import layout_of_state as layout_of_state
else:
    __getattr__ = lazy(
        __name__,
        {
            "_launch": ("run_under_holder", "start_under_holder"),
            "_link": ("Handover", "HolderRefusedError", "Link", "Takeover"),
            "_plan": ("PLAN_AT", "REPORT_AT", "SOCKET_AT", "Plan"),
            "_program": ("ProgramSurvival", "start_holder", "take_from_holder"),
            "_survival": ("DaemonSurvival", "Survival", "UnmountedError", "layout_of_state"),
        },
    )
