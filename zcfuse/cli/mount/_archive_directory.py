"""The directory that shows the archives of real directories, as these change."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from zcfuse.cli._errors import CommandError
from zcfuse.tree import Dir, Renewable, RenewalError
from zcfuse.tree.archive import ArchiveError

if TYPE_CHECKING:
    from zcfuse.tree.archive import Archive

LOG = logging.getLogger(__name__)

_Stamp: TypeAlias = "tuple[int, int, int, int] | None"


class ArchiveDirectory(Dir, Renewable):
    """Shows archives by their names. Each archive looks at its own file.

    Parameters:
        directories: the absolute paths of the directories.
        found: the archives by path, including those outside of the directories.
        listed: returns the paths of the possible archives in the directories.
        load: makes the tree of an archive.
        names: returns the name of each archive by path.
    """

    def __init__(
        self,
        directories: Sequence[str],
        found: Mapping[str, Archive],
        listed: Callable[[], Sequence[str]],
        load: Callable[[str], Archive],
        names: Callable[[Sequence[str]], Mapping[str, str]],
    ) -> None:
        self._found = dict(found)
        self._listed = listed
        self._load = load
        self._names_of = names
        self._watched = directories
        before = listed()
        self._elsewhere = self._found.keys() - set(before)
        self._refused = {path: _stamp(path) for path in before if path not in self._found}
        shown = names(list(self._found))
        super().__init__({shown[path]: archive for path, archive in self._found.items()})

    def watched(self) -> Collection[bytes]:
        """Return the directories."""
        return [os.fsencode(directory) for directory in self._watched]

    def look(self) -> Callable[[], None] | None:
        """Index what is new, and note what is gone. Raises RenewalError."""
        try:
            listed = self._listed()
            found = {path: self._found[path] for path in self._elsewhere}
            found |= {path: self._found[path] for path in listed if path in self._found}
            refused = [error for path in listed if (error := self._try(path, found))]
            if found.keys() == self._found.keys():
                if refused:
                    raise RenewalError("; ".join(refused))
                return None
            names = self._names_of(list(found))
        except (CommandError, OSError) as error:
            raise RenewalError(str(error)) from error
        for reason in refused:
            LOG.warning("left out: %s", reason)
        return partial(self._show, found, {names[path]: found[path] for path in found})

    def _try(self, path: str, found: dict[str, Archive]) -> str:
        """Index a new archive; return why it cannot be read, once."""
        stamp = _stamp(path)
        if path in found or (path in self._refused and self._refused[path] == stamp):
            return ""
        try:
            found[path] = self._load(path)
        except (ArchiveError, OSError) as error:
            self._refused[path] = stamp
            return str(error)
        self._refused.pop(path, None)
        return ""

    def _show(self, found: dict[str, Archive], shown: Mapping[str, Archive]) -> None:
        self._found = found
        for name in [name for name in self if self.get(name) is not shown.get(name)]:
            self.remove(name)
        for name in shown.keys() - set(self):
            self.add(name, shown[name])


def _stamp(path: str) -> _Stamp:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None
