"""The daemon of ``zcfuse mount``: one tree, one mount, its signals and its log."""

from __future__ import annotations

import functools
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TextIO

import trio

from zcfuse.admin import ServiceManager
from zcfuse.control._log import DEFAULT_LOG_LEVEL, set_up_logging
from zcfuse.control._mount import mount
from zcfuse.control._served import UNMOUNTED, Mount
from zcfuse.control._watchdog import keep_watch
from zcfuse.control._witness import Witness
from zcfuse.control.survive import Survival
from zcfuse.linux import MountError
from zcfuse.options import MountOptions
from zcfuse.tree import Tree

log = logging.getLogger(__name__)

# A terminal that closes sends SIGHUP, which must not leave a dead mount behind.
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_daemon(
    make_tree: Callable[[], Tree],
    mountpoint: str,
    options: MountOptions,
    *,
    ready: Callable[[Sequence[str]], None],
    log_to: TextIO | None,
    log_level: str = DEFAULT_LOG_LEVEL,
    service: ServiceManager | None = None,
    witness: Witness | None = None,
    survival: Survival | None = None,
) -> int:
    """Mount a tree and serve it until it is unmounted or a signal ends it.

    Parameters:
        make_tree: opens the tree; its OSError is an error of the source.
        mountpoint: an absolute path.
        options: of the mount.
        ready: called once the mount answers, with a line for each option that cannot do what it
            promises. Its OSError (the caller is gone) ends the mount.
        log_to: the stream of the log; None discards it.
        log_level: the lowest level to log, one of `LOG_LEVELS`.
        service: the service manager to inform; None without one.
        witness: the client that asks for the watchdog whether the mount answers.
        survival: this daemon's part in keeping the mount over its own death; None without a holder.

    Returns:
        The exit status: 0 after an unmount or a signal, 1 if the connection failed or was aborted.

    Raises:
        MountError: the mount failed; nothing stays mounted, unless a successor takes it over.
        UnmountedError: there is no mount to take over.
    """
    set_up_logging(log_to, log_level)
    _raise_limits()
    try:
        tree = make_tree()
    except OSError as error:
        raise MountError(f"source {options.source_name}: {error.strerror}") from error
    try:
        manager = service or ServiceManager()
        serve = functools.partial(_serve, witness=witness, survival=survival)
        return trio.run(serve, tree, mountpoint, options, ready, manager)
    finally:
        tree.close()


def _raise_limits() -> None:
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))


async def _serve(
    tree: Tree,
    mountpoint: str,
    options: MountOptions,
    ready: Callable[[Sequence[str]], None],
    service: ServiceManager,
    *,
    witness: Witness | None,
    survival: Survival | None,
) -> int:
    # After its receiver, trio restores the handlers set here. They keep a signal after the unmount
    # from spoiling the exit status.
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Receive signals before the mount, so that a signal during its start cannot leave it behind.
    with trio.open_signal_receiver(*_ENDING_SIGNALS) as signals:
        async with (
            mount(tree, mountpoint, options, survival=survival) as served,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_end_on_signal, signals, served, service)
            ready(served.shortfalls)
            log.info("process %d serves %s at %s", os.getpid(), served.source, served.mountpoint)
            service.ready(f"serves {served.source} at {served.mountpoint}")
            reason = await _watched_until_ended(served, service, witness)
            outcome = await served.unmount()
            nursery.cancel_scope.cancel()
    if outcome.message:
        log.warning("%s", outcome.message)
    if served.failed or (reason != UNMOUNTED and not outcome.lazy):
        log.error("%s: the connection ended: %s", mountpoint, reason)
        return 1
    log.info("unmounted %s", mountpoint)
    return 1 if outcome.failed else 0


async def _watched_until_ended(
    served: Mount, service: ServiceManager, witness: Witness | None
) -> str:
    async with trio.open_nursery() as nursery:
        if witness is not None:
            nursery.start_soon(keep_watch, service, served, witness)
        reason = await served.wait_ended()
        nursery.cancel_scope.cancel()
    service.stopping(reason)
    return reason


async def _end_on_signal(
    signals: AsyncIterator[int], served: Mount, service: ServiceManager
) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        service.stopping("unmounting")
        served.request_end()
