"""The leased answers of the policies in one tree.

Belongs to the trio thread of the mount that shows the tree.
"""

from __future__ import annotations

import math
import time
from typing import Final, NamedTuple

from zcfuse.tree._entry import Content
from zcfuse.tree._leased import AnswerLease

EVERYONE: Final = -1
MOST_MISSING: Final = 65_536  # clients choose names that are missing, so their number has a bound
_PURGE_EVERY: Final = 4096  # answers


class Answer(NamedTuple):
    """A leased meaning of a name; None: it is missing. `ino` is what the data path shows of it."""

    content: Content | None
    ino: int | None
    end: float  # of time.monotonic()


class Missing(NamedTuple):
    """A name that is missing for a user, or for EVERYONE."""

    directory: bytes
    name: bytes
    uid: int


class Answers:
    """Leased answers by directory, name and user."""

    def __init__(self) -> None:
        self._answers: dict[tuple[bytes, bytes], dict[int, Answer]] = {}
        self._missing: dict[Missing, None] = {}  # the oldest first
        self._kept = 0
        self.drops = 0
        """Grows with each changed(): an answer that a policy began before may be stale."""

    def get(self, directory: bytes, name: bytes, uid: int) -> Answer | None:
        """Return the answer for a user, or None without a valid one."""
        answers = self._answers.get((directory, name))
        if answers is None:
            return None
        now = time.monotonic()
        for whose in (EVERYONE, uid):
            answer = answers.get(whose)
            if answer is not None and answer.end > now:
                return answer
        return None

    def shown_as(self, directory: bytes, name: bytes, ino: int) -> Content | None:
        """Return what the data path shows of a name by this inode number, or has shown."""
        now = time.monotonic()
        for answer in self._answers.get((directory, name), {}).values():
            if answer.ino == ino and answer.end > now:
                return answer.content
        found = self.get(directory, name, EVERYONE)
        return None if found is None else found.content

    def keep(
        self,
        directory: bytes,
        name: bytes,
        uid: int,
        lease: AnswerLease,
        content: Content | None,
        ino: int | None,
    ) -> Missing | None:
        """Keep an answer that a user got; return one that ends for it, if there are too many."""
        now = time.monotonic()
        self._kept += 1
        if self._kept % _PURGE_EVERY == 0:
            self._purge(now)
        whose = EVERYONE if lease.for_everyone else uid
        end = math.inf if lease.valid_for is None else now + lease.valid_for
        self._answers.setdefault((directory, name), {})[whose] = Answer(content, ino, end)
        key = Missing(directory, name, whose)
        self._missing.pop(key, None)
        if content is None:
            self._missing[key] = None
        return self._take_oldest() if len(self._missing) > MOST_MISSING else None

    def drop(self, directory: bytes, name: bytes) -> None:
        """End all answers for a name."""
        self.drops += 1
        for whose in self._answers.pop((directory, name), ()):
            self._missing.pop(Missing(directory, name, whose), None)

    def _take_oldest(self) -> Missing:
        oldest = next(iter(self._missing))
        del self._missing[oldest]
        place = (oldest.directory, oldest.name)
        answers = self._answers[place]
        del answers[oldest.uid]
        if not answers:
            del self._answers[place]
        return oldest

    def _purge(self, now: float) -> None:
        for place, answers in list(self._answers.items()):
            left = {}
            for uid, answer in answers.items():
                if answer.end > now:
                    left[uid] = answer
                else:
                    self._missing.pop(Missing(*place, uid), None)
            if left:
                self._answers[place] = left
            else:
                del self._answers[place]
