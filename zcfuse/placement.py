"""Ready-made placements for a `Pool`, each a few lines to read and to change.

Each function returns what `Pool(branches, place=...)` takes. `leased_for` is how many seconds an
answer holds for a directory; meanwhile new files in it cost no question.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence

from zcfuse.tree import Answer, Hint, Placement, Placing, Who

__all__ = [
    "by_size_hint",
    "by_suffix",
    "existing_path",
    "first_with_room",
    "most_free",
    "round_robin",
]


def most_free(branches: Sequence[str], leased_for: float = 1.0) -> Placing:
    """Place a file on the branch with the most free space (`f_bavail` of statvfs(3))."""

    def place(name: str, who: Who, hint: Hint) -> Placement:
        return Placement(max(branches, key=_free), leased=True, valid_for=leased_for)

    return place


def first_with_room(branches: Sequence[str], room: int, leased_for: float = 1.0) -> Placing:
    """Place a file on the first branch with `room` bytes free, without such a one on the last."""

    def place(name: str, who: Who, hint: Hint) -> Placement:
        fitting = (branch for branch in branches if _free(branch) >= room)
        return Placement(next(fitting, branches[-1]), leased=True, valid_for=leased_for)

    return place


def round_robin(branches: Sequence[str]) -> Placing:
    """Place each new file on the next branch. Every file costs a question."""
    turns = itertools.cycle(branches)

    def place(name: str, who: Who, hint: Hint) -> Placement:
        return Placement(next(turns))

    return place


def existing_path(branches: Sequence[str], otherwise: Placing) -> Placing:
    """Place a file on the first branch that has its directory already, or as `otherwise` says.

    A file at the top of the pool goes as `otherwise` says, because every branch has the root.
    """

    def place(name: str, who: Who, hint: Hint) -> Answer[Placement]:
        above = os.path.dirname(name)
        for branch in branches if above else ():
            if os.path.isdir(os.path.join(branch, above)):
                return Placement(branch, leased=True)
        return otherwise(name, who, hint)

    return place


def by_suffix(branches: Mapping[str, str], otherwise: str) -> Placing:
    """Place a file by the end of its name, as in `{".log": "/slow"}`; others on `otherwise`."""

    def place(name: str, who: Who, hint: Hint) -> Placement:
        fitting = (branch for suffix, branch in branches.items() if name.endswith(suffix))
        return Placement(next(fitting, otherwise))

    return place


def by_size_hint(limit: int, small: str, large: str) -> Placing:
    """Place files of `limit` bytes or more on `large`, as the hint of their directory says.

    The kernel does not say how large a new file becomes. A user says it beforehand:
    `setfattr --name user.zcfuse.hint --value 4000000000 DIRECTORY`.
    """

    def place(name: str, who: Who, hint: Hint) -> Placement:
        is_large = hint.text.isdecimal() and int(hint.text) >= limit
        return Placement(large if is_large else small, leased=True, valid_for=1.0)

    return place


def _free(branch: str) -> int:
    found = os.statvfs(branch)
    return found.f_bavail * found.f_frsize
