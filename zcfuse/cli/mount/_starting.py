"""Starts the daemon of a mount in the foreground, as a service, or in the background."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from zcfuse.admin import ServiceManager
from zcfuse.cli._errors import warn
from zcfuse.cli.mount._archives import log_archives
from zcfuse.cli.mount._libraries import library_trouble
from zcfuse.cli.mount._shown import Prepared
from zcfuse.control import (
    AUTOFS,
    DEFAULT_LOG_LEVEL,
    Witness,
    background_log,
    foreground_log,
    run_in_background,
)
from zcfuse.linux import Answer, MountError, probe, read_mounts
from zcfuse.options import MountOptions

if TYPE_CHECKING:
    from zcfuse.control.survive import Survival


@dataclass(frozen=True, slots=True)
class Logging:
    """The daemon's log file and its lowest level; None selects the default."""

    file: str | None = None
    level: str | None = None

    @property
    def path(self) -> str | None:
        """The file's absolute path, since a daemon in the background changes its directory."""
        return os.path.abspath(self.file) if self.file else None


def start(
    shown: Prepared,
    options: MountOptions,
    values: Mapping[str, object],
    source: str | None,
    *,
    foreground: bool,
) -> int:
    """Serve a mount, or have a daemon serve it, and return the exit status.

    Parameters:
        shown: the checked mount.
        options: of the mount.
        values: all options, by name, as the user gave them.
        source: the first argument, as the user gave it.
        foreground: whether this process becomes the daemon, or its holder.

    Raises:
        MountError: the mount failed; nothing stays mounted.
    """
    logging = logging_of(values)
    if options.survive:
        return _start_surviving(shown, options, values, source, foreground=foreground)
    serve = functools.partial(_serve, shown, options, logging.level or DEFAULT_LOG_LEVEL)
    if foreground:
        return serve(foreground_log(logging.path), None, ServiceManager.of_environment())
    log_to = background_log(logging.path)
    run_in_background(
        functools.partial(serve, log_to),
        functools.partial(_require_answer, shown.where),
        error_output=log_to,
    )
    return 0


def _start_surviving(
    shown: Prepared,
    options: MountOptions,
    values: Mapping[str, object],
    source: str | None,
    *,
    foreground: bool,
) -> int:
    from zcfuse.control.survive import Plan, run_under_holder, start_under_holder

    log_to = foreground_log(None) if foreground else background_log(logging_of(values).path)
    plan = Plan(
        source=source,
        where=shown.where,
        values=values,
        name=options.source_name,
        directory=os.getcwd(),
        foreground=foreground,
        modules=tuple(sys.path),
    )
    if foreground:
        run_under_holder(plan)
    keeps = log_to is not None and log_to is sys.stderr
    check = functools.partial(_require_answer, shown.where)
    start_under_holder(plan, check, keeps_error_output=keeps)
    return 0


def serve_in_turn(
    shown: Prepared,
    options: MountOptions,
    logging: Logging,
    survival: Survival,
    *,
    foreground: bool,
    ready: Callable[[TextIO | None], None] | None,
) -> int:
    """Serve a surviving mount in this process, until a successor's turn or the end of the mount.

    Parameters:
        shown, options: of the mount.
        logging: where to log.
        survival: this daemon's part in keeping the mount.
        foreground: whether standard error is the log, unless there is a log file.
        ready: called with the log once the mount answers; None if nobody waits.

    Returns:
        The exit status.

    Raises:
        MountError: the start failed.
        UnmountedError: there is no mount to take over.
    """
    make_log = foreground_log if foreground else background_log
    log_to = make_log(logging.path)
    told = None if ready is None else functools.partial(ready, log_to)
    service = ServiceManager.of_environment() if foreground else None
    level = logging.level or DEFAULT_LOG_LEVEL
    return _serve(shown, options, level, log_to, told, service, survival)


def _serve(
    shown: Prepared,
    options: MountOptions,
    log_level: str,
    log_to: TextIO | None,
    ready: Callable[[], None] | None,
    service: ServiceManager | None = None,
    survival: Survival | None = None,
) -> int:
    watched = service is not None and service.watchdog is not None
    witness = Witness(shown.where) if watched else None
    # The event loop and pyfuse3 load after the fork, and only for a valid command.
    try:
        from zcfuse.control import run_daemon
    except ImportError as error:
        raise MountError(library_trouble(error)) from error

    def ready_and_told(shortfalls: Sequence[str]) -> None:
        log_archives(shown.archives)  # now the daemon has its log
        if ready is None:
            return
        for line in shortfalls:  # the log has them too, but the caller does not read it
            warn(f"zcfuse: {shown.where}: {line}")
        ready()

    return run_daemon(
        shown.make_tree,
        shown.where,
        options,
        ready=ready_and_told,
        log_to=log_to,
        log_level=log_level,
        service=service,
        witness=witness,
        survival=survival,
    )


def logging_of(values: Mapping[str, Any]) -> Logging:
    """Return where the daemon logs, and what."""
    return Logging(values.get("log_file"), values.get("log_level"))


def _require_answer(mountpoint: str) -> None:
    if any(m.mountpoint == mountpoint and m.fstype == AUTOFS for m in read_mounts()):
        # Clients of an automount wait until the service manager hears that the mount is ready.
        # A look from here would wait in the same way, and so for this process itself.
        return
    answer = probe(mountpoint)
    if answer is not Answer.ALIVE:
        raise MountError(
            f"{mountpoint}: mounted, but the mount is {answer.value}: try --foreground to see why"
        )
