"""Starts the daemon of a mount in the foreground, as a service, or in the background."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

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


@dataclass(frozen=True, slots=True)
class Logging:
    """The daemon's log file and its lowest level; None selects the default."""

    file: str | None = None
    level: str | None = None

    @property
    def path(self) -> str | None:
        """The file's absolute path, since a daemon in the background changes its directory."""
        return os.path.abspath(self.file) if self.file else None


def start(shown: Prepared, options: MountOptions, logging: Logging, *, foreground: bool) -> int:
    """Serve a mount, or have a daemon serve it, and return the exit status.

    Raises:
        MountError: the mount failed; nothing stays mounted.
    """
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


def _serve(
    shown: Prepared,
    options: MountOptions,
    log_level: str,
    log_to: TextIO | None,
    ready: Callable[[], None] | None,
    service: ServiceManager | None = None,
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
    )


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
