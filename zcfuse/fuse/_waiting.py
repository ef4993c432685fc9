"""Opens that wait for a lease (fcntl(2)) which another process holds on the backing file.

The holder has up to 45 s to let go, and may hold leases on any number of files. So each user gets a
few waiting places, and all users together fewer than a ring has entries. Belongs to the trio
thread.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Iterator
from typing import Final

PLACES: Final = 4
"""Opens of all users but root that wait at a time: half of the entries of a ring's queue."""

PLACES_PER_USER: Final = 2
_ROOT: Final = 0


class WaitingOpens:
    """The places to wait in. `refused` counts the opens that found none."""

    def __init__(self) -> None:
        self._by_user: Counter[int] = Counter()
        self.refused = 0

    def __len__(self) -> int:
        return self._by_user.total()

    @contextlib.contextmanager
    def place(self, uid: int) -> Iterator[None]:
        """Hold a place for a user while the block waits.

        Raises OSError: EAGAIN if no place is free, like a native open with O_NONBLOCK.
        """
        others = len(self) - self._by_user[_ROOT]
        if uid != _ROOT and (others >= PLACES or self._by_user[uid] >= PLACES_PER_USER):
            self.refused += 1
            raise OSError(errno.EAGAIN, "too many opens wait for leases of other processes")
        self._by_user[uid] += 1
        try:
            yield
        finally:
            self._by_user[uid] -= 1
            if not self._by_user[uid]:
                del self._by_user[uid]
