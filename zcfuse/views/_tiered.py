"""Files of a slow disk that move to a fast one once they are asked for often."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from typing import Protocol

import trio

from zcfuse.arguments import require_path, require_type
from zcfuse.tree import Dir, File
from zcfuse.views._files import files_of

LOG = logging.getLogger(__name__)

_EVERY_S = 1.0


class Opened(Protocol):
    """How often a file was opened so far, by its path from the root of the mount."""

    @property
    def path(self) -> str:
        """The path."""

    @property
    def opens(self) -> int:
        """The number."""


class Movable(Protocol):
    """The part of a `Mount` that this view uses."""

    def hot_files(self) -> Sequence[Opened]:
        """Return the files that are asked for most."""

    async def move(self, path: str, to: str, /) -> None:
        """Serve a file from another place from now on."""


class Tiered(Dir):
    """The directory of `tiered`. Await `run` beside the mount, or `promote` whenever it suits."""

    __slots__ = ("_after", "_fast", "_promoted", "_slow")

    def __init__(self, fast: str, slow: str, after: int) -> None:
        super().__init__()
        self._fast = fast
        self._slow = slow
        self._after = after
        self._promoted: set[str] = set()
        shown = Dir.from_paths({path: self._file(path) for path in files_of(slow)})
        for name in shown:
            self.add(name, shown[name])

    async def run(self, mounted: Movable, every: float = _EVERY_S) -> None:
        """Promote files until it is cancelled, looking each `every` seconds.

        Parameters:
            mounted: the `Mount` whose root this directory is.
            every: seconds between two looks.
        """
        while True:
            await self.promote(mounted)
            await trio.sleep(every)

    async def promote(self, mounted: Movable) -> list[str]:
        """Copy files opened often enough to the fast disk, and serve them from there.

        A worker thread copies. A file that cannot be copied (no space) stays where it is, with a
        line in the log. Returns the paths that were moved.
        """
        moved = []
        for file in mounted.hot_files():
            path = file.path.lstrip("/")
            if file.opens < self._after or path in self._promoted:
                continue
            self._promoted.add(path)
            target = os.path.join(self._fast, path)
            try:
                await trio.to_thread.run_sync(_copy, os.path.join(self._slow, path), target)
                await mounted.move(path, target)
            except (OSError, ValueError) as error:
                LOG.warning("%s stays on the slow disk: %s", path, error)
                continue
            moved.append(path)
        return moved

    def _file(self, path: str) -> File:
        copy, original = os.path.join(self._fast, path), os.path.join(self._slow, path)
        if not _is_copy(copy, original):
            return File(original)
        self._promoted.add(path)
        return File(copy)


def tiered(fast: str | os.PathLike[str], slow: str | os.PathLike[str], after: int = 3) -> Tiered:
    """Return a Dir that shows the files below `slow`, and serves those opened often from `fast`.

    A file that lies below `fast` already, with the same size and time, is served from there at
    once. Clients that have a file open keep the one that they have.

    Parameters:
        fast: a directory for copies. Nothing in it is removed.
        slow: the directory whose files are shown; the copies rely on its files not changing.
        after: how many opens make a file worth a copy.

    Raises:
        OSError: a directory cannot be listed.
        ValueError: `after` is less than 1.
    """
    require_path("fast", fast)
    require_path("slow", slow)
    require_type("after", after, int, "a number of opens")
    if after < 1:
        raise ValueError(f"after={after}: give a number of opens, 1 or more")
    return Tiered(os.fspath(fast), os.fspath(slow), after)


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    unfinished = f"{target}.unfinished"
    shutil.copy2(source, unfinished)
    os.replace(unfinished, target)


def _is_copy(copy: str, original: str) -> bool:
    try:
        found, wanted = os.stat(copy), os.stat(original)
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)
