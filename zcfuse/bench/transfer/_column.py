"""One mounted column of the tables: its mount, its client, and the caches of its file.

Columns are mounted one after another, never side by side: a daemon that maps windows of the file
keeps it in the page cache for all. If a client does not return, it is killed and its mount aborted;
every later command of the column then fails with that reason.
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
_LEFT_SHARE: Final = 20  # cold means that less than this fraction (1/N) is cached
# The slowest transfer, in bytes per second, that does not count as hanging.
_SLOWEST: Final = 5_000_000
_DEADLINE_S: Final = 30.0


def target_of(column: str, source: SourceFile) -> Target:
    """The mount of a column, below `source.mountpoint`; nothing for the backing file."""
    if column == BACKING:
        return Target(BACKING)
    # Over io_uring all paths of the daemon become one, so there is nothing to compare.
    where = os.path.join(source.mountpoint, column)
    return zcfuse_target(column, source.root, where, ("--transport", "dev"))


class Column:
    """A mounted column. Use `opened_column()`."""

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
        """The path of its file."""
        return os.path.join(self._running.root, self._source.name)

    def ask(self, command: str, **arguments: object) -> object:
        """Run a command on the file in its client.

        Raises `ClientError` if that fails, and from then on if the client did not return.
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
        """Bring the caches into the state `cache`; returns deviations from it.

        Pages stay if a daemon has the file mapped, or if a socket has not yet freed what it sent.
        Then the column is mounted again.
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
        """Unmount it and end its client; a second call has no effect."""
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
    """A count of bytes from the client; zero if unknown."""
    return max(0, answer) if isinstance(answer, int) else 0


@contextlib.contextmanager
def opened_column(name: str, source: SourceFile, backing: ClientProcess) -> Iterator[Column]:
    """Mount a column, with a client, during the block.

    Raises `MountFailedError` if it is unavailable.
    """
    column = Column(name, source, backing)
    try:
        yield column
    finally:
        column.close()
