"""Starts, serves and ends a mount, in a program or as a daemon.

A command forks before it imports an event loop, so this package loads each name when a caller first
uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.control._attach import attach as attach
    from zcfuse.control._attach import is_waiting as is_waiting
    from zcfuse.control._background import report_failure as report_failure
    from zcfuse.control._background import report_ready as report_ready
    from zcfuse.control._background import run_in_background as run_in_background
    from zcfuse.control._checks import AUTOFS as AUTOFS
    from zcfuse.control._checks import check_apart as check_apart
    from zcfuse.control._checks import check_layers as check_layers
    from zcfuse.control._checks import check_mountpoint as check_mountpoint
    from zcfuse.control._checks import check_options as check_options
    from zcfuse.control._checks import check_source as check_source
    from zcfuse.control._daemon import run_daemon as run_daemon
    from zcfuse.control._log import DEFAULT_LOG_LEVEL as DEFAULT_LOG_LEVEL
    from zcfuse.control._log import LOG_LEVELS as LOG_LEVELS
    from zcfuse.control._log import background_log as background_log
    from zcfuse.control._log import foreground_log as foreground_log
    from zcfuse.control._log import is_journal as is_journal
    from zcfuse.control._log import with_priority as with_priority
    from zcfuse.control._mount import mount as mount
    from zcfuse.control._renewal import Renewal as Renewal
    from zcfuse.control._served import Mount as Mount
    from zcfuse.control._thread import ServedMount as ServedMount
    from zcfuse.control._thread import serve as serve
    from zcfuse.control._witness import Witness as Witness
else:
    __getattr__ = lazy(
        __name__,
        {
            "_attach": ("attach", "is_waiting"),
            "_background": ("report_failure", "report_ready", "run_in_background"),
            "_checks": (
                "AUTOFS",
                "check_apart",
                "check_layers",
                "check_mountpoint",
                "check_options",
                "check_source",
            ),
            "_daemon": ("run_daemon",),
            "_log": (
                "DEFAULT_LOG_LEVEL",
                "LOG_LEVELS",
                "background_log",
                "foreground_log",
                "is_journal",
                "with_priority",
            ),
            "_mount": ("mount",),
            "_renewal": ("Renewal",),
            "_served": ("Mount",),
            "_thread": ("ServedMount", "serve"),
            "_witness": ("Witness",),
        },
    )
