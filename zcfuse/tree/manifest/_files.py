"""The real files of a manifest, in a compact form for a million files.

A path is stored as the number of its directory and a name in one long string. Recent files are
found again by path. A file that returns after many others gets a second row, which costs a few
bytes and a second check.
"""

from __future__ import annotations

import os
import stat
from array import array
from typing import Final

from zcfuse.tree.manifest._errors import Problem

UNKNOWN: Final = 2**64 - 1
"""The size of an unchecked file."""

_RECENT: Final = 1 << 16


class BackingFiles:
    """Files by number. `base` is the directory for relative paths.

    Checks up to `checked` files when they are named, each once. Errors of the others appear when a
    client uses them.
    """

    def __init__(self, base: bytes, checked: int) -> None:
        self._base = base
        self._left = checked
        self._recent: dict[str, int] = {}
        self._directories: list[bytes] = []
        self._directory_numbers: dict[bytes, int] = {}
        self._in: array[int] = array("I")
        self._names = bytearray()
        self._ends: array[int] = array("Q", [0])
        self._sizes: array[int] = array("Q")
        self.unchecked = 0

    def __len__(self) -> int:
        return len(self._in)

    def number(self, path: str) -> int:
        """Return the number of a file. Raises Problem if it is not a regular file."""
        found = self._recent.get(path)
        return self._add(path) if found is None else found

    def size(self, number: int) -> int:
        """Return the size of a file in bytes at its check, or UNKNOWN."""
        return self._sizes[number]

    def path(self, number: int) -> bytes:
        """Return the absolute path of a file."""
        name = bytes(self._names[self._ends[number] : self._ends[number + 1]])
        return self._directories[self._in[number]] + name

    def seal(self) -> None:
        """Free the data needed only for reading."""
        self._recent.clear()
        self._directory_numbers.clear()

    def _add(self, path: str) -> int:
        full = absolute("file", path, self._base)
        size = self._size(path, full)
        head, _, name = full.rpartition(b"/")
        number = len(self._in)
        self._in.append(self._directory(head + b"/"))
        self._names += name
        self._ends.append(len(self._names))
        self._sizes.append(size)
        if len(self._recent) >= _RECENT:
            self._recent.clear()
        self._recent[path] = number
        return number

    def _directory(self, path: bytes) -> int:
        number = self._directory_numbers.setdefault(path, len(self._directories))
        if number == len(self._directories):
            self._directories.append(path)
        return number

    def _size(self, path: str, full: bytes) -> int:
        if self._left <= 0:
            self.unchecked += 1
            return UNKNOWN
        self._left -= 1
        status = looked_at("file", path, full)
        if stat.S_ISDIR(status.st_mode):
            raise Problem("file", f"{path} is a directory: show it by mirror")
        if not stat.S_ISREG(status.st_mode):
            raise Problem("file", f"{path} is not a regular file")
        return status.st_size


def absolute(field: str, path: str, base: bytes) -> bytes:
    """Return an absolute path; relative ones start at `base`."""
    if not path or "\0" in path:
        raise Problem(field, "is empty" if not path else "has a NUL in it")
    return os.path.join(base, os.fsencode(path))


def looked_at(field: str, path: str, full: bytes) -> os.stat_result:
    """Return stat(2) of a path, following symbolic links; raise Problem if it fails."""
    try:
        return os.stat(full)
    except FileNotFoundError:
        raise Problem(field, f"{path} does not exist") from None
    except OSError as error:
        raise Problem(field, f"{path}: {error.strerror}") from None
