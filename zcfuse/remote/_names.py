"""The facts of names, in a file, because the listings of a mount may have millions of names.

Any thread may call. The file has no name, and the process that made it keeps 2 MiB of it in memory.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
import struct
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from zcfuse.remote._messages import Info

# A table's names have numbers from its own on. So many names have room in one.
_NUMBER_BITS: Final = 32
_TABLE: Final = struct.Struct(">I")
# A failed transaction must leave the earlier names as they were. Nothing outlives the process.
_SETUP: Final = """
PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;
CREATE TABLE names (number INTEGER PRIMARY KEY, key BLOB UNIQUE, facts BLOB);
"""
# Names of discarded tables that leave the file for each one that comes, and at least at a time.
_SWEPT_EACH: Final = 4
_SWEPT_LEAST: Final = 256


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`Info` without its name.

    `path` is None if it is the directory and the name. With `names_size`, `version` lacks the size.
    """

    path: str | None
    is_directory: bool
    size: int | None
    mtime_ns: int
    version: str
    names_size: bool


class NameStore:
    """The file of the names of one mount. Owns its descriptor until `close`."""

    def __init__(self, directory: str) -> None:
        """`directory` gets the file, with the first name."""
        self._directory = directory
        self.lock = threading.Lock()
        """Held over each use of the database, and of what tells about it."""

        self._database: sqlite3.Connection | None = None
        self._closed = False
        self._tables = itertools.count()
        # The first number and the end of what discarded tables left.
        self._discarded: deque[tuple[int, int]] = deque()

    def table(self) -> int:
        """Return the first number of a new table."""
        return next(self._tables) << _NUMBER_BITS

    def discard(self, start: int, stop: int) -> None:
        """Have names disappear later, by number. Takes no lock, since finalizers run anywhere."""
        self._discarded.append((start, stop))

    @contextlib.contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """Lend the database for one transaction, to a caller that holds `lock`.

        Raises OSError: ENOSPC if the disk is full, otherwise EIO. Then nothing has changed.
        """
        try:
            database = self._opened()
            with database:
                database.execute("BEGIN")
                yield database
        except sqlite3.Error as error:
            is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            number = errno.ENOSPC if is_full else errno.EIO
            raise OSError(number, os.strerror(number)) from error

    def sweep(self, coming: int) -> None:
        """Delete some of what was discarded, which gives room to the `coming` names on a full disk.

        The caller holds `lock`. Raises as `using`.
        """
        if not self._discarded:
            return
        left = max(coming * _SWEPT_EACH, _SWEPT_LEAST)
        swept: list[tuple[int, int]] = []
        try:
            with self.using() as database:
                while left > 0 and self._discarded:
                    start, stop = self._discarded.popleft()
                    end = min(start + left, stop)
                    if end < stop:
                        self._discarded.appendleft((end, stop))
                    swept.append((start, end))
                    left -= end - start
                    database.execute(
                        "DELETE FROM names WHERE number >= ? AND number < ?", swept[-1]
                    )
        except OSError:
            self._discarded.extend(swept)
            raise

    def close(self) -> None:
        """Close the file, which frees its space. A second call does nothing."""
        with self.lock:
            self._closed = True
            if self._database is not None:
                self._database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise sqlite3.ProgrammingError("closed")
        if self._database is None:
            try:
                made, path = tempfile.mkstemp(prefix=".names-", dir=self._directory)
            except FileNotFoundError as error:  # which clients would take for a missing name
                raise OSError(errno.EIO, os.strerror(errno.EIO), self._directory) from error
            try:
                # SQLite locks files, and a close of another descriptor would unlock this one.
                os.close(made)
                database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                database.executescript(_SETUP)
            finally:
                os.unlink(path)
            self._database = database
        return self._database


class NameTable:
    """Facts by name, in the order of their coming. Its names leave the store with it."""

    __slots__ = ("_above", "_count", "_end", "_start", "_store")

    def __init__(self, store: NameStore) -> None:
        self._store = store
        self._start = self._end = store.table()
        self._count = 0
        self._above: str | None = None

    def __del__(self) -> None:
        if self._end > self._start:
            self._store.discard(self._start, self._end)

    def __len__(self) -> int:
        return self._count

    def get(self, name: bytes) -> Info | None:
        """Return the facts of a name, None if it is not there. Raises as `NameStore.using`."""
        if not self._count:
            return None
        with self._store.lock, self._store.using() as database:
            asked = "SELECT facts FROM names WHERE key = ?"
            found = database.execute(asked, (self._key(name),)).fetchone()
        return None if found is None else self._unpacked(name, found[0])

    def entries(self, start: int, most: int) -> list[tuple[int, Info]]:
        """Return up to `most` names from number `start` on, with their numbers; likewise raises.

        The first number is 0. The number of a name never changes; one that is removed leaves a gap.
        """
        if self._start + start >= self._end:
            return []
        with self._store.lock, self._store.using() as database:
            asked = (
                "SELECT number, key, facts FROM names WHERE number >= ? AND number < ? "
                "ORDER BY number LIMIT ?"
            )
            found = database.execute(asked, (self._start + start, self._end, most)).fetchall()
        return [
            (number - self._start, self._unpacked(key[_TABLE.size :], facts))
            for number, key, facts in found
        ]

    def add(self, infos: Iterable[Info]) -> None:
        """Add names at the end; a name that is there stays as it is. Likewise raises."""
        infos = list(infos)
        if not infos:
            return
        with self._store.lock:
            self._store.sweep(len(infos))
            rows = [
                (number, self._key(info.name), self._packed(info))
                for number, info in enumerate(infos, self._end)
            ]
            with self._store.using() as database:
                before = database.total_changes
                database.executemany(
                    "INSERT INTO names VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", rows
                )
                came = database.total_changes - before
            self._end += len(infos)
            self._count += came

    def put(self, info: Info) -> None:
        """Add a name, or replace its facts; likewise raises."""
        with self._store.lock, self._store.using() as database:
            changed = database.execute(
                "UPDATE names SET facts = ? WHERE key = ?",
                (self._packed(info), self._key(info.name)),
            )
        if not changed.rowcount:
            self.add([info])

    def remove(self, name: bytes) -> None:
        """Forget a name, which may be missing; likewise raises."""
        with self._store.lock:
            with self._store.using() as database:
                changed = database.execute("DELETE FROM names WHERE key = ?", (self._key(name),))
            self._count -= changed.rowcount

    def _key(self, name: bytes) -> bytes:
        return _TABLE.pack(self._start >> _NUMBER_BITS) + name

    def _packed(self, info: Info) -> bytes:
        path: str | None = info.path
        text = _text(info.name)
        if self._above is None and info.path.endswith(text):
            self._above = info.path.removesuffix(text)
        if self._above is not None and info.path == self._above + text:
            path = None
        head = f"{info.size} "
        names_size = info.version.startswith(head)
        version = info.version[len(head) :] if names_size else info.version
        record = _Record(path, info.is_directory, info.size, info.mtime_ns, version, names_size)
        return msgspec.msgpack.encode(record)

    def _unpacked(self, name: bytes, packed: bytes) -> Info:
        kept = msgspec.msgpack.decode(packed, type=_Record)
        path = f"{self._above}{_text(name)}" if kept.path is None else kept.path
        version = f"{kept.size} {kept.version}" if kept.names_size else kept.version
        return Info(name, path, kept.is_directory, kept.size, kept.mtime_ns, version)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
