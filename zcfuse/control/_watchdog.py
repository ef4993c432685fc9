"""Pings the watchdog of the service manager while the mount is alive.

Three conditions must hold. The trio loop runs, since it also runs the pings. The data path has
serving threads, all of which run, and it can take its locks to add up its counters. And a client of
the mount, the `Witness`, gets an answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import trio

from zcfuse.admin import ServiceManager
from zcfuse.control._witness import Witness

log = logging.getLogger(__name__)

_TASKS: Final = "/proc/self/task"
# Threads whose work may be to wait for a backing filesystem.
_WAITING_ROLES: Final = frozenset({"serve", "ring", "read", "list", "call"})
# Serving needs at least one thread of each of these. Others may end early and leave their counters,
# such as the threads of an unavailable ring.
_NEEDED: Final = (frozenset({"serve", "ring"}), frozenset({"relay"}))
# proc_pid_stat(5): uninterruptible sleep; stopped or traced; ended.
_WAITS_FOR_DISK: Final = "D"
_STOPPED: Final = frozenset("Tt")
_ENDED: Final = frozenset({"", "Z", "X"})


class Watched(Protocol):
    """The part of `zcfuse.control._served.Mount` that the watchdog needs."""

    def statistics(self) -> Mapping[str, Any]:
        """The counts of both planes; ``datapath`` is None without one."""


async def keep_watch(service: ServiceManager, served: Watched, witness: Witness) -> None:
    """Ping the watchdog twice in each of its periods while the mount is alive, until cancelled.

    Parameters:
        service: the owner of the watchdog; without a watchdog, return at once.
        served: the mount.
        witness: the client of the mount.
    """
    if service.watchdog is None:
        return
    period = service.watchdog / 2
    last = ""
    while True:
        began = trio.current_time()
        trouble, deadly = await _trouble(served, witness, period / 2)
        if not deadly:
            service.alive()
        if trouble != last:
            _tell(service, trouble, deadly=deadly)
            last = trouble
        await trio.sleep_until(began + period)


async def _trouble(served: Watched, witness: Witness, within: float) -> tuple[str, bool]:
    """Return the trouble, or "", and whether a restart would help."""
    threads = (served.statistics()["datapath"] or {}).get("threads", ())
    trouble = _trouble_of_threads(threads)
    if trouble:
        return trouble, True
    if await _answered(witness, within):
        return "", False
    waiting = [thread["tid"] for thread in threads if thread["role"] in _WAITING_ROLES]
    if _WAITS_FOR_DISK in map(state_of_thread, waiting):
        return "a backing filesystem does not answer", False
    return f"the mount did not answer within {within:g} s", True


def _trouble_of_threads(threads: Iterable[Mapping[str, Any]]) -> str:
    states = [(thread["role"], state_of_thread(thread["tid"])) for thread in threads]
    for role, state in states:
        if state in _STOPPED:
            return f"a thread of the data path ({role}) is stopped"
    for needed in _NEEDED:
        theirs = [state for role, state in states if role in needed]
        if theirs and _ENDED.issuperset(theirs):
            return f"no thread of the data path is left ({' or '.join(sorted(needed))})"
    return ""


async def _answered(witness: Witness, within: float) -> bool:
    """Say whether the mount answers in time. A late answer counts for the next question."""
    witness.ask()
    with trio.move_on_after(within):
        await trio.lowlevel.wait_readable(witness)
        witness.hear()
        return True
    return False


def _tell(service: ServiceManager, trouble: str, *, deadly: bool) -> None:
    if deadly:
        log.error("%s: the watchdog is not pinged until that is over", trouble)
    elif trouble:
        log.warning("%s", trouble)
    else:
        log.warning("the mount answers again")
    service.status(trouble or "the mount answers again")


def state_of_thread(tid: int) -> str:
    """Return the state of a thread of this process: a letter of proc_pid_stat(5), "" if gone."""
    try:
        with open(f"{_TASKS}/{tid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""
