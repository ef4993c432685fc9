"""Explicit attributes of nodes: few different ones, whatever the number of nodes."""

from __future__ import annotations

import re
from array import array
from datetime import datetime
from typing import Final

import msgspec

from zcfuse.tree._entry import ENTRY_PATHS, LARGEST
from zcfuse.tree.manifest._columns import DIRECTORY, MIRROR, REMOTE, SYMLINK, reordered
from zcfuse.tree.manifest._errors import Problem
from zcfuse.tree.manifest._records import Record, did_you_mean

NO_TIME: Final = -1
_SECOND_NS: Final = 1_000_000_000
_OCTAL: Final = re.compile(r"(0o)?[0-7]{3,6}")
_PERMISSIONS: Final = 0o7777
_WITHOUT_CHOICE: Final = {
    MIRROR: "a mirror has that of its directory",
    REMOTE: "the files of a URL have their own",
}
_WITHOUT_BYTES: Final = {DIRECTORY: "a directory", SYMLINK: "a link"}
_FIELDS: Final = ("mode", "uid", "gid", "serve")
_NO_WISH: Final = (None,) * 4

_Wish = tuple[str | None, int | None, int | None, str | None, int]
"""Mode, uid, gid and serve as written, and the kind of the node."""


class Attributes(msgspec.Struct, frozen=True, gc=False):
    """The explicit attributes; None for a default."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    serve: str | None = None


class GivenAttributes:
    """A column of attributes by row, and one of modification times in nanoseconds."""

    __slots__ = ("_numbers", "_rows", "_table", "_times")

    def __init__(self) -> None:
        self._numbers: dict[_Wish, int] = {}
        self._table = [Attributes()]
        self._rows: array[int] = array("I")
        self._times: array[int] | None = None  # created with the first value

    def append(self, record: Record | None, kind: int) -> None:
        """Add a row with a node's attributes, or None. Raises Problem."""
        self._rows.append(0)
        if self._times is not None:
            self._times.append(NO_TIME)
        if record is not None:
            self.replace(len(self._rows) - 1, record, kind)

    def replace(self, row: int, record: Record, kind: int) -> None:
        """Set a row to a node's attributes. Raises Problem."""
        wish = (record.mode, record.uid, record.gid, record.serve, kind)
        if wish[:4] != _NO_WISH:
            number = self._numbers.get(wish)
            self._rows[row] = self._number(wish) if number is None else number
        if record.mtime is not None:
            if kind in _WITHOUT_CHOICE:
                raise Problem("mtime", _WITHOUT_CHOICE[kind])
            if self._times is None:
                self._times = array("q", [NO_TIME]) * len(self._rows)
            self._times[row] = _nanoseconds(record.mtime)

    def of(self, row: int) -> tuple[Attributes, int]:
        """Return a row's attributes and its modification time in nanoseconds, or NO_TIME."""
        return self._table[self._rows[row]], NO_TIME if self._times is None else self._times[row]

    def reorder(self, order: array[int]) -> None:
        """Reorder the rows, and free the data needed only for reading."""
        self._numbers.clear()
        self._rows = reordered(self._rows, order)
        if self._times is not None:
            self._times = reordered(self._times, order)

    def _number(self, wish: _Wish) -> int:
        mode, uid, gid, serve, kind = wish
        if kind in _WITHOUT_CHOICE:
            field = next(
                name for name, value in zip(_FIELDS, wish, strict=False) if value is not None
            )
            raise Problem(field, _WITHOUT_CHOICE[kind])
        if serve is not None and kind in _WITHOUT_BYTES:
            raise Problem("serve", f"{_WITHOUT_BYTES[kind]} has no bytes to serve")
        number = self._numbers[wish] = len(self._table)
        self._table.append(Attributes(_mode(mode), uid, gid, _serving(serve)))
        return number


def _mode(text: str | None) -> int | None:
    if text is None:
        return None
    if not _OCTAL.fullmatch(text) or int(text, 8) > _PERMISSIONS:
        raise Problem("mode", f'{text!r} are no permission bits in octal, such as "0644"')
    return int(text, 8)


def _serving(path: str | None) -> str | None:
    if path is None or path in ENTRY_PATHS:
        return path
    paths = tuple(sorted(ENTRY_PATHS))
    hint = did_you_mean(path, paths) or f": choose one of {', '.join(paths)}"
    raise Problem("serve", f"there is no path {path!r}{hint}")


def _nanoseconds(given: int | float | datetime) -> int:
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise Problem("mtime", "is a date without a zone: end it in Z, or in +02:00")
        seconds: int | float = given.timestamp()
    else:
        seconds = given
    if not 0 <= seconds < LARGEST // _SECOND_NS:  # NaN fails this too
        raise Problem("mtime", "must lie from 1970 on and before 2262")
    return seconds * _SECOND_NS if isinstance(seconds, int) else round(seconds * _SECOND_NS)
