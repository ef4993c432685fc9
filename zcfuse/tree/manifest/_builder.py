"""Turns records, in any order, into a checked index.

Rows stay in the order of the records, with their parents, until the last record. Then one sort by
directory and name follows, which also finds duplicates.
"""

from __future__ import annotations

import binascii
import stat
from array import array
from typing import Final

from zcfuse.datapath import NAME_BYTES
from zcfuse.tree._entry import LARGEST
from zcfuse.tree._renewal import COHERENCE
from zcfuse.tree.manifest._columns import (
    DIRECTORY,
    FILE,
    MIRROR,
    PARTS,
    REMOTE,
    SYMLINK,
    TEXT,
    TO_THE_END,
    ZEROS,
    Contents,
    Row,
)
from zcfuse.tree.manifest._errors import Problem
from zcfuse.tree.manifest._files import UNKNOWN, BackingFiles, absolute, looked_at
from zcfuse.tree.manifest._given import GivenAttributes
from zcfuse.tree.manifest._index import Index, Mirrored
from zcfuse.tree.manifest._records import CONTENTS, PART_CONTENTS, Part, Record
from zcfuse.tree.manifest._sorting import sorted_rows

_LONGEST_PATH: Final = 4095  # bytes of a directory's path: PATH_MAX without its NUL (limits.h)
_LONGEST_TARGET: Final = 4095
_NOT_NAMES: Final = frozenset({"", ".", ".."})
_ROOT: Final = 0


class Builder:
    """Collects nodes. A node's position is its reader's count: a line, or a table.

    Parameters:
        base: the directory for relative paths.
        mtime_ns: the modification time of nodes without one.
        checked_files: the maximum number of different files to check.
        opens_urls: whether nodes may be URLs.
    """

    def __init__(
        self, base: bytes, mtime_ns: int, checked_files: int, *, opens_urls: bool = False
    ) -> None:
        self._base = base
        self._opens_urls = opens_urls
        self._mtime_ns = mtime_ns
        self.files = BackingFiles(base, checked_files)
        self.names: list[bytes] = []
        self.parents: array[int] = array("I")
        self.positions: array[int] = array("I")
        self.contents = Contents()
        self._given = GivenAttributes()
        self._parts = Contents()
        self._texts = bytearray()
        self._targets = bytearray()
        self._mirrors: list[Mirrored] = []
        self._urls: list[str] = []
        self._directories = {"": _ROOT}
        self.directory_rows: array[int] = array("I", [0])  # the root has none
        self._written: set[int] = set()  # directories with a record

    def add(self, position: int, record: Record) -> None:
        """Add a node. Raises Problem."""
        if record.coherence is not None:
            _check_coherence(record)
        if record.dir:
            self._add_directory(position, record)
            return
        parent, name = self._place(position, record.path)
        row = self._content(record)
        self._given.append(record, row[0])
        self._append(position, parent, name, row)

    def finish(self) -> None:
        """Sort the nodes, before `index`. Raises Problem for a contradiction."""
        self._directories.clear()
        self._written.clear()
        self._sorted = sorted_rows(self)
        self.names.clear()  # they take more memory than everything else

    def index(self) -> Index:
        """Return the index. Call it once, after `finish`."""
        self.files.seal()
        return Index(
            mtime_ns=self._mtime_ns,
            order=self._sorted,
            contents=self.contents,
            given=self._given,
            parts=self._parts,
            files=self.files,
            texts=self._texts,
            targets=bytes(self._targets),
            mirrors=self._mirrors,
            urls=self._urls,
        )

    def _append(self, position: int, parent: int, name: bytes, row: Row) -> None:
        self.names.append(name)
        self.parents.append(parent)
        self.positions.append(position)
        self.contents.append(row)

    def _place(self, position: int, path: str) -> tuple[int, bytes]:
        head, _, name = path.rpartition("/")
        parent = self._directories.get(head)
        if parent is None:
            parent = self._directory(position, head, path)
        elif path[:1] == "/":
            raise _absolute(path)
        return parent, _name(name, path)

    def _directory(self, position: int, directory: str, path: str) -> int:
        """Return the number of a directory; create it and its parents if missing."""
        if path[:1] == "/":
            raise _absolute(path)
        if len(directory.encode()) > _LONGEST_PATH:
            raise Problem("path", f"the directory's path is longer than {_LONGEST_PATH} bytes")
        names = directory.split("/")
        encoded = [_name(name, path) for name in names]
        parent = _ROOT
        for depth, name in enumerate(encoded, 1):
            way = "/".join(names[:depth])
            number = self._directories.get(way)
            if number is None:
                number = self._directories[way] = len(self.directory_rows)
                self.directory_rows.append(len(self.names))
                self._given.append(None, DIRECTORY)
                self._append(position, parent, name, (DIRECTORY, number, 0, 0))
            parent = number
        return parent

    def _add_directory(self, position: int, record: Record) -> None:
        _require_one(record, CONTENTS)
        _refuse_range(record)
        number = self._directories.get(record.path)
        if number == _ROOT or number is None:
            _require_name(record.path)
            number = self._directory(position, record.path, record.path)
        row = self.directory_rows[number]
        if number in self._written:
            raise Problem("path", _twice(record.path), other=self.positions[row])
        self._written.add(number)
        self.positions[row] = position
        self._given.replace(row, record, DIRECTORY)

    def _content(self, record: Record) -> Row:
        if record.parts is not None:
            _require_one(record, CONTENTS)
            return self._concat(record, record.parts)
        if record.symlink is not None:
            _require_one(record, CONTENTS)
            return self._symlink(record, record.symlink)
        if record.remote is not None:
            _require_one(record, CONTENTS)
            return self._remote(record, record.remote)
        if record.mirror is not None:
            _require_one(record, CONTENTS)
            return self._mirror(record, record.mirror)
        return self._bytes(record, CONTENTS)

    def _bytes(self, part: Part, contents: tuple[str, ...]) -> Row:
        """Return the content of a node or of a part."""
        file = part.file
        others = (part.text, part.base64, part.zeros)
        if file is None or others != (None, None, None):
            _require_one(part, contents)
        if file is not None:
            return self._range(file, part.offset, part.length)
        _refuse_range(part)
        if part.zeros is not None:
            return ZEROS, 0, 0, part.zeros
        data = _data(part)
        self._texts += data
        return TEXT, 0, len(self._texts) - len(data), len(data)

    def _range(self, file: str, offset: int | None, length: int | None) -> Row:
        number = self.files.number(file)
        size = self.files.size(number)
        start = offset or 0
        if start + (length or 0) > min(size, LARGEST):
            _refuse_beyond(file, start, length or 0, size)
        return FILE, number, start, TO_THE_END if length is None else length

    def _concat(self, record: Record, parts: list[Part]) -> Row:
        _refuse_range(record)
        rows = []
        for number, part in enumerate(parts):
            try:
                rows.append(self._bytes(part, PART_CONTENTS))
            except Problem as problem:
                field = f"parts[{number}]" + (f".{problem.field}" if problem.field else "")
                raise Problem(field, problem.reason) from None
        if sum(map(self._least, rows)) > LARGEST:
            raise Problem("parts", "are together longer than a file can be, 2^63 - 1 bytes")
        first = len(self._parts)
        for row in rows:
            self._parts.append(row)
        return PARTS, first, 0, len(rows)

    def _least(self, row: Row) -> int:
        """Return the size of a part in bytes, 0 if its file is unchecked."""
        _, number, start, length = row
        if length != TO_THE_END:
            return length
        size = self.files.size(number)
        return 0 if size == UNKNOWN else max(size - start, 0)

    def _symlink(self, record: Record, target: str) -> Row:
        _refuse_range(record)
        encoded = target.encode()
        if not encoded or b"\0" in encoded:
            raise Problem("symlink", "is empty" if not encoded else "has a NUL in it")
        if len(encoded) > _LONGEST_TARGET:
            raise Problem("symlink", f"is longer than {_LONGEST_TARGET} bytes")
        self._targets += encoded
        return SYMLINK, 0, len(self._targets) - len(encoded), len(encoded)

    def _mirror(self, record: Record, directory: str) -> Row:
        _refuse_range(record)
        full = absolute("mirror", directory, self._base)
        if not stat.S_ISDIR(looked_at("mirror", directory, full).st_mode):
            raise Problem("mirror", f"{directory} is not a directory")
        self._mirrors.append(Mirrored(full, record.coherence))
        return MIRROR, len(self._mirrors) - 1, 0, 0

    def _remote(self, record: Record, url: str) -> Row:
        _refuse_range(record)
        if not self._opens_urls:
            raise Problem(
                "remote", "only a mount shows a URL; load_manifest needs remote=zcfuse.Remote"
            )
        if "://" not in url:
            raise Problem("remote", "must be a URL, such as s3://bucket/prefix")
        self._urls.append(url)
        return REMOTE, len(self._urls) - 1, 0, 0


def _name(name: str, path: str) -> bytes:
    """Return a checked name of a path."""
    if name in _NOT_NAMES:
        _require_name(path)
    encoded = name.encode()
    if len(encoded) > NAME_BYTES:
        raise Problem("path", f"the name {name[:40]}... is longer than {NAME_BYTES} bytes")
    if "\0" in name:
        raise Problem("path", f"{path!r} has a NUL in it")
    return encoded


def _require_name(path: str) -> None:
    """Raise Problem for a path without a name, or with forbidden names."""
    if path[:1] == "/":
        raise _absolute(path)
    names = path.split("/")
    if not path:
        raise Problem("path", "is empty")
    if "." in names or ".." in names:
        dots = ".." if ".." in names else "."
        raise Problem("path", f"{path} has {dots!r} in it: write it without")
    if names[-1] == "":
        raise Problem("path", f"{path} ends in a slash")
    if "" in names:
        raise Problem("path", f"{path} has an empty name in it")


def _absolute(path: str) -> Problem:
    return Problem("path", f"{path} is absolute: paths begin at the mount point, without a slash")


def _require_one(part: Part, contents: tuple[str, ...]) -> None:
    values = ((name, getattr(part, name)) for name in contents)
    given = [name for name, value in values if value is not None and value is not False]
    if not given:
        raise Problem("", f"has no content: give one of {', '.join(contents)}")
    if len(given) > 1:
        raise Problem(given[1], f"there is {given[0]} already: give one of them")


def _check_coherence(record: Record) -> None:
    if record.mirror is None:
        raise Problem("coherence", "goes with mirror only")
    if record.coherence not in COHERENCE:
        raise Problem("coherence", "must be ttl, push or strict")


def _refuse_range(part: Part) -> None:
    for name in ("offset", "length"):
        if getattr(part, name) is not None:
            raise Problem(name, "goes with file only")


def _refuse_beyond(file: str, offset: int, length: int, size: int) -> None:
    if size == UNKNOWN or offset + length > LARGEST:
        raise Problem("length", f"{offset} + {length} is more than a file can have")
    if offset > size:
        raise Problem("offset", f"{offset} lies beyond the {size} bytes of {file}")
    end = offset + length
    raise Problem("length", f"{offset} + {length} = {end}, beyond the {size} bytes of {file}")


def _data(part: Part) -> bytes:
    if part.text is not None:
        return part.text.encode()
    assert part.base64 is not None, "one of the contents was given"
    try:
        return binascii.a2b_base64(part.base64, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise Problem("base64", f"is none: {error}") from None


def _twice(path: str) -> str:
    return f"{path} is given twice"
