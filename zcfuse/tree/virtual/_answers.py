"""The leased answers of the policies in one tree.

Belongs to the trio thread of the mount that shows the tree.
"""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

from zcfuse.tree._entry import Content
from zcfuse.tree._leased import Leased

EVERYONE: Final = -1
_PURGE_EVERY: Final = 4096  # answers


class _Answer(NamedTuple):
    content: Content
    end: float  # of time.monotonic()


class Answers:
    """Leased answers by directory, name and user."""

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, bytes], dict[int, _Answer]] = {}
        self._kept = 0
        self.drops = 0
        """Grows with each changed(): an answer that a policy began before may be stale."""

    def get(self, directory: bytes, name: bytes, uid: int) -> Content | None:
        """Return the answer for a user, or None without a valid one."""
        answers = self._answers.get((directory, name))
        if answers is None:
            return None
        answer = answers.get(EVERYONE) or answers.get(uid)
        return None if answer is None or answer.end <= time.monotonic() else answer.content

    def keep(self, directory: bytes, name: bytes, uid: int, leased: Leased) -> None:
        """Keep an answer that a user got."""
        now = time.monotonic()
        self._kept += 1
        if self._kept % _PURGE_EVERY == 0:
            self._purge(now)
        whose = EVERYONE if leased.for_everyone else uid
        end = math.inf if leased.valid_for is None else now + leased.valid_for
        self._answers.setdefault((directory, name), {})[whose] = _Answer(leased.entry, end)

    def drop(self, directory: bytes, name: bytes) -> None:
        """End all answers for a name."""
        self.drops += 1
        self._answers.pop((directory, name), None)

    def _purge(self, now: float) -> None:
        for place, answers in list(self._answers.items()):
            left = {uid: answer for uid, answer in answers.items() if answer.end > now}
            if left:
                self._answers[place] = left
            else:
                del self._answers[place]
