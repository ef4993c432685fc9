"""Measures how much faster one file of a FUSE mount would be without FUSE."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Final

import msgspec

_TIMES: Final = 60


class Cost(msgspec.Struct, frozen=True):
    """The time of a call in microseconds: through the mount, and in the directory beneath."""

    fuse_us: float
    beneath_us: float


class Gain(msgspec.Struct, frozen=True):
    """The way in which the kernel would serve the tree, and the cost of two calls."""

    how: str
    lookup: Cost
    opening: Cost


def measured(file: str, backing: str, directories: int) -> Gain | None:
    """Measure lookups and opens beside a regular file of a mount, and beside the file behind it.

    The lookups are of missing names, because no cache has these. It reads no file.

    Parameters:
        file: in the mount.
        backing: the whole file behind it.
        directories: how many of them the mount merges.

    Returns:
        The gain; None if this process cannot open both.
    """
    try:
        opening = Cost(_median(_opener(file)), _median(_opener(backing)))
    except OSError:
        return None
    lookup = Cost(_median(_seeker(file)), _median(_seeker(backing)))
    how = "a bind mount" if directories == 1 else "overlayfs"
    return Gain(how, lookup, opening)


def described(gain: Gain) -> str:
    """Return a gain as one line."""
    return (
        f"{gain.how} by --engine kernel: a name that is not cached would cost"
        f" {_saved(gain.lookup)}, an open and close {_saved(gain.opening)} (measured now)"
    )


def _saved(cost: Cost) -> str:
    return f"about {cost.beneath_us:.1f} us, not {cost.fuse_us:.1f}"


def _median(call: Callable[[int], None]) -> float:
    found = []
    for number in range(_TIMES):
        began = time.perf_counter_ns()
        call(number)
        found.append(time.perf_counter_ns() - began)
    return statistics.median(found) / 1000


def _opener(path: str) -> Callable[[int], None]:
    return lambda number: os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _seeker(file: str) -> Callable[[int], None]:
    beginning = os.path.join(os.path.dirname(file), f".zcfuse-{os.getpid()}-{time.time_ns()}-")

    def seek(number: int) -> None:
        os.access(f"{beginning}{number}", os.F_OK)

    return seek
