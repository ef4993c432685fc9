"""The daemon of ``zcfuse mount``: one tree, one mount, signals and the log, start to end."""

from __future__ import annotations

import faulthandler
import logging
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final, TextIO

import trio

from zcfuse.control._mount import UNMOUNTED, Mount, mount
from zcfuse.control._options import MountOptions
from zcfuse.datapath._mounting import MountError
from zcfuse.tree import Dir, Mirror, Tree, VirtualTree

log = logging.getLogger(__name__)

# A terminal that closes (SIGHUP) must not leave a dead mount behind either.
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def run_daemon(
    source: str | Dir | Tree,
    mountpoint: str,
    options: MountOptions,
    *,
    ready: Callable[[], None],
    log_to: TextIO | None,
) -> int:
    """Mount a tree and serve it until it is unmounted or a signal ends it.

    Parameters:
        source: the real directory to show, an absolute path; or one that was put together; or a
            tree, which is closed at the end.
        mountpoint: where, an absolute path.
        options: how.
        ready: called once the mount answers; an OSError of it (nobody waits any more) ends the
            mount.
        log_to: where the log goes; None: nowhere.

    Returns:
        The exit status: 0 after an unmount or a signal, 1 if the connection failed or was aborted.

    Raises:
        MountError: it was refused; nothing is left mounted.
    """
    _set_up_logging(log_to)
    _raise_limits()
    tree = _tree(source)
    try:
        return trio.run(_serve, tree, mountpoint, options, ready)
    finally:
        tree.close()


def _set_up_logging(log_to: TextIO | None) -> None:
    if log_to is None:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return
    logging.basicConfig(stream=log_to, format=_LOG_FORMAT, level=logging.INFO, force=True)
    faulthandler.enable(log_to)


def _raise_limits() -> None:
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (hard, hard))


def _tree(source: str | Dir | Tree) -> Tree:
    if isinstance(source, Tree):
        return source
    if isinstance(source, Dir):
        return VirtualTree(source)
    try:
        return Mirror(source)
    except OSError as error:
        raise MountError(f"source {source}: {error.strerror}") from error


async def _serve(
    tree: Tree, mountpoint: str, options: MountOptions, ready: Callable[[], None]
) -> int:
    # A signal that comes when all is unmounted already must not spoil the exit status: what trio
    # restores behind the receiver is what stands here.
    for number in _ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # Before the mount: a signal that comes while it is being made must not leave it behind.
    with trio.open_signal_receiver(*_ENDING_SIGNALS) as signals:
        async with mount(tree, mountpoint, options) as served, trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, signals, served)
            ready()
            log.info("process %d serves %s at %s", os.getpid(), served.source, served.mountpoint)
            reason = await served.wait_ended()
            outcome = await served.unmount()
            nursery.cancel_scope.cancel()
    if outcome.message:
        log.warning("%s", outcome.message)
    if reason != UNMOUNTED and not outcome.lazy:
        log.error("%s: the connection ended: %s", mountpoint, reason)
        return 1
    log.info("unmounted %s", mountpoint)
    return 1 if outcome.failed else 0


async def _end_on_signal(signals: AsyncIterator[int], served: Mount) -> None:
    async for number in signals:
        log.info("%s: unmounting", signal.Signals(number).name)
        served.request_end()
