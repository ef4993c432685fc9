"""One column of the tables while it is there: its mount, its client, and the caches of its file.

Columns are mounted one after the other, never side by side: a daemon that keeps windows of the file
mapped keeps it in the page cache for all others too. A client that does not come back is killed and
its mount aborted; from then on everything that is asked of the column fails with that reason.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from zcfuse.bench._clients import ClientError, ClientProcess, ClientTimedOutError
from zcfuse.bench._daemons import RunningMount, give_up
from zcfuse.bench._sources import SourceFile
from zcfuse.bench._targets import BACKING, RunningTarget, Target, started, zcfuse_target

CLIENT_MODULE: Final = "zcfuse.bench.transfer._client"
_LEFT_SHARE: Final = 20  # cold is where less than one part in so many is still cached
# The slowest that a transfer may be, in bytes a second, before it counts as hanging.
_SLOWEST: Final = 5_000_000
_DEADLINE_S: Final = 30.0


def target_of(column: str, source: SourceFile) -> Target:
    """What is mounted for a column, below `source.mountpoint`; nothing for the backing file."""
    if column == BACKING:
        return Target(BACKING)
    # Over io_uring all paths of the daemon's are one, so that there would be nothing to compare.
    where = os.path.join(source.mountpoint, column)
    return zcfuse_target(column, source.root, where, ("--transport", "dev"))


class Column:
    """A column that is mounted. Use `opened_column()`."""

    def __init__(self, name: str, source: SourceFile, backing: ClientProcess) -> None:
        self.name: Final = name
        self._source = source
        self._backing = backing
        self._target = target_of(name, source)
        self._dead = ""
        self._stack = contextlib.ExitStack()
        self._running = self._start()

    @property
    def mount(self) -> RunningMount | None:
        """Its mount; None for the backing file."""
        return self._running.mount

    @property
    def path(self) -> str:
        """Where it has the file."""
        return os.path.join(self._running.root, self._source.name)

    def ask(self, command: str, **arguments: object) -> object:
        """Have its client do something with the file.

        Raises `ClientError` where that fails, and ever after where the client did not come back.
        """
        if self._dead:
            raise ClientError(self._dead)
        deadline = _DEADLINE_S + self._source.size / _SLOWEST
        try:
            return self._running.client.ask(
                command, deadline_s=deadline, path=self.path, **arguments
            )
        except ClientTimedOutError as error:
            self._dead = str(error)
            if self.mount is not None:
                give_up(self.mount.mountpoint, self.mount.device)
            raise

    def prepare(self, cache: str) -> str:
        """Bring the caches into the state `cache`; returns what is not as it should be.

        Pages stay where a daemon has the file mapped, and where a socket has not yet freed what it
        has sent: then it is mounted anew.
        """
        if cache == "cold":
            return self._emptied(self._drop)
        self._backing.ask("fill", path=self._source.path, size=self._source.size)
        if cache == "warm":
            self.ask("fill", size=self._source.size)
        elif self.mount is not None:
            return self._emptied(lambda: _bytes(self.ask("drop")))
        return ""

    def close(self) -> None:
        """Unmount it and end its client; again, no effect."""
        self._stack.close()

    def _start(self) -> RunningTarget:
        return self._stack.enter_context(started(self._target, self._source.root, CLIENT_MODULE))

    def _emptied(self, drop: Callable[[], int]) -> str:
        left = self._left(drop())
        if left and self.mount is not None and not self._dead:
            self.close()
            self._running = self._start()
            left = self._left(drop())
        return left

    def _drop(self) -> int:
        mounted = _bytes(self.ask("drop")) if self.mount is not None else 0
        return mounted + _bytes(self._backing.ask("drop", path=self._source.path))

    def _left(self, size: int) -> str:
        if size * _LEFT_SHARE <= self._source.size:
            return ""
        return f"{size >> 10} KiB stayed in the page cache"


def _bytes(answer: object) -> int:
    """A count of bytes that the client answered with; where it did not know them, none."""
    return max(0, answer) if isinstance(answer, int) else 0


@contextlib.contextmanager
def opened_column(name: str, source: SourceFile, backing: ClientProcess) -> Iterator[Column]:
    """Mount a column, with a client, for the length of the block.

    Raises `MountFailedError` where it is not to be had.
    """
    column = Column(name, source, backing)
    try:
        yield column
    finally:
        column.close()
