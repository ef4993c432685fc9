"""One daemon of a mount that survives its daemons; the holder starts it with a plan.

It loads everything, reads the source, and waits for its turn. Then it takes the mount over, or
makes it if it is the first. It never looks at the mount point, which may be its own mount.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

import click

from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli.mount._libraries import library_trouble
from zcfuse.cli.mount._options import mount_options, wanted
from zcfuse.cli.mount._shown import Prepared, prepare
from zcfuse.cli.mount._starting import logging_of, serve_in_turn
from zcfuse.control import report_failure, report_ready
from zcfuse.control.survive import (
    PLAN_AT,
    REPORT_AT,
    SOCKET_AT,
    DaemonSurvival,
    Link,
    Plan,
    UnmountedError,
    layout_of_state,
)
from zcfuse.linux import MountError
from zcfuse.options import MountOptions

if TYPE_CHECKING:
    from zcfuse.control.survive import Takeover

log = logging.getLogger(__name__)

_FIRST: Final = "first"


def main() -> NoReturn:
    """Become a daemon of the mount in turn, and end the process with it."""
    first = sys.argv[1:] == [_FIRST]
    plan = Plan.load(PLAN_AT)
    report = REPORT_AT if first and not plan.foreground else -1
    for descriptor in (SOCKET_AT, PLAN_AT, *([report] if report >= 0 else [])):
        os.set_inheritable(descriptor, False)
    link = Link(socket.socket(fileno=SOCKET_AT))
    try:
        status = _take_turn(link, plan, report)
    except BaseException as error:
        status = _failed(_as_mount_error(error), report)
    logging.shutdown()
    # Neither threads nor the tree may keep a process whose mount is over.
    os._exit(status)


def _be_watched_for_holder() -> None:
    """Ping the watchdog that the service manager set for the holder, its main process."""
    if os.environ.get("WATCHDOG_PID") == str(os.getppid()):
        os.environ["WATCHDOG_PID"] = str(os.getpid())


def _take_turn(link: Link, plan: Plan, report: int) -> int:
    options, shown = _prepared(plan)
    _load()
    link.warm(layout_of_state())
    takeover = link.wait_takeover()
    if takeover is None:
        return 0
    _be_watched_for_holder()
    survival = DaemonSurvival(link, takeover)
    options = replace(options, source_name=plan.name)
    try:
        return serve_in_turn(
            shown,
            options,
            logging_of(plan.values),
            survival,
            foreground=plan.foreground,
            ready=_reporter(takeover, report),
        )
    except UnmountedError:
        survival.ending()
        return 0


def _prepared(plan: Plan) -> tuple[MountOptions, Prepared]:
    """Check and read the source, as ``zcfuse mount`` did."""
    sys.path.extend(place for place in plan.modules if place not in sys.path)
    os.chdir(plan.directory)
    options = mount_options(plan.values)
    named = replace(wanted(plan.source, plan.values), mounted=True)
    if named.option() is None:
        shown = prepare(named, plan.where, options)
    else:
        shown = prepare(replace(named, source=plan.where), None, options)
    os.chdir("/")
    return options, shown


def _load() -> None:
    """Load what serves any mount; a successor must not spend the pause on that."""
    try:
        import zcfuse.admin.explain  # noqa: F401
        from zcfuse.control import run_daemon  # noqa: F401
    except ImportError as error:
        raise MountError(library_trouble(error)) from error
    import trio

    trio.run(trio.lowlevel.checkpoint)  # the first run takes longer than later ones


def _reporter(takeover: Takeover, report: int) -> Callable[[TextIO | None], None] | None:
    if takeover.generation > 1 or report < 0:
        return None
    return lambda log_to: report_ready(report, log_to)


def _as_mount_error(error: BaseException) -> BaseException:
    if isinstance(error, CommandError):
        return MountError(error.message, usage=error.usage)
    if isinstance(error, click.UsageError):
        return MountError(error.format_message(), usage=True)
    return error


def _failed(error: BaseException, report: int) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    log.error("this daemon ends: %s", error, exc_info=not isinstance(error, MountError))
    if report >= 0:
        return report_failure(report, error)
    warn(f"zcfuse: {error}", level=logging.ERROR)
    return 2 if isinstance(error, MountError) and error.usage else 1


if __name__ == "__main__":
    main()
