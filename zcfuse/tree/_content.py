"""Files that are made of other files: whole ones, pieces, sequences of pieces, and holes.

Where a file's bytes lie is found out when it is looked at or opened, not when the entry is made:
files are opened by path when a client opens the node, and no descriptor is kept for an entry.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable
from typing import Final, Unpack

from zcfuse.tree._entry import Content, Entry, Given, PathLike, attributes_key, whole_number
from zcfuse.tree._paths import absolute
from zcfuse.tree._sources import Run, Runs, Sources, joined
from zcfuse.tree._types import Tree

_DIGEST_BYTES: Final = 16


class Blob(Entry):
    """An entry whose bytes are runs of real files: File, Slice, Concat, Zeros or Bytes."""

    __slots__ = ()

    @abstractmethod
    def runs(self, sources: Sources) -> Runs:
        """Return the runs that make it up, by files that `sources` opens or looks at.

        Raises OSError where one of them cannot be.
        """


class File(Blob):
    """A whole regular file.

    Its size is that of the file, wherever that ends when it is read, and it passes through where
    the kernel allows it. Symbolic links in `file` are followed, by the daemon and with its rights,
    each time it is looked at or opened; a relative path is taken from the working directory of now.

    Parameters:
        file: path of the file, which need not exist yet. What is no regular file cannot be looked
            up: EISDIR for a directory, EINVAL for a FIFO, socket or device, which is never waited
            for; a missing file is a missing name.
        attributes: mode (the file's permission bits), uid, gid, mtime (the file's) and path, as
            `Entry` has them.

    Raises:
        ValueError: the path is empty or has a NUL.
    """

    __slots__ = ("file",)

    def __init__(self, file: PathLike, /, **attributes: Unpack[Given]) -> None:
        super().__init__(**attributes)
        self.file = absolute(file)

    def runs(self, sources: Sources) -> Runs:
        """Return the whole file."""
        source = sources.of(self.file)
        return Runs((Run(source, 0, source.size, open_ended=True),))

    def key(self) -> object:
        """Return the path and the attributes."""
        return "file", self.file, attributes_key(self)

    def describe(self) -> str:
        """Return the path."""
        return f"File {os.fsdecode(self.file)}"


class Slice(Blob):
    """`length` bytes of a file or of another entry, from `offset` on.

    Where the file has fewer bytes the slice ends with the file, as pread(2) would: its size is what
    there is. Within a `Concat` nothing follows such a slice, so that no byte is ever shown at
    another offset than was said.

    Parameters:
        of: a path, or a File, Slice, Concat, Zeros or Bytes.
        offset: in bytes.
        length: in bytes; None: to the end.
        attributes: mode (the file's permission bits), uid, gid, mtime (the file's) and path, as
            `Entry` has them.

    Raises:
        TypeError: `of` has no bytes that could be sliced; offset or length is no int.
        ValueError: offset or length is negative or beyond 2**63 - 1.
    """

    __slots__ = ("length", "of", "offset")

    def __init__(
        self,
        of: PathLike | Blob,
        offset: int,
        length: int | None = None,
        /,
        **attributes: Unpack[Given],
    ) -> None:
        super().__init__(**attributes)
        whole_number("offset", offset)
        if length is not None:
            whole_number("length", length)
        inner = blob(of)
        self.of: Blob = inner
        self.offset: int = offset
        self.length: int | None = length
        if isinstance(inner, Slice) and _within(inner.length, offset, length):
            # A slice of a slice costs no more than a slice.
            if length is None and inner.length is not None:
                self.length = inner.length - offset
            self.of, self.offset = inner.of, whole_number("offset", inner.offset + offset)

    def runs(self, sources: Sources) -> Runs:
        """Return what there is of the range."""
        return self.of.runs(sources).cut(self.offset, self.length)

    def key(self) -> object:
        """Return what it is a slice of, the range and the attributes."""
        return "slice", self.of.key(), self.offset, self.length, attributes_key(self)

    def describe(self) -> str:
        """Return the range and what it is of."""
        length = "all" if self.length is None else f"{self.length:,} bytes"
        return f"Slice: {length} from byte {self.offset:,} of {self.of.describe()}"


class Concat(Blob):
    """The parts one behind the other.

    A part's place follows from the sizes of those before it when the file is opened, and holds
    until it is closed: a file that grows meanwhile shows no more. A part that ends before it should
    ends the whole, as a file that was truncated.

    Parameters:
        parts: each a path or a File, Slice, Concat, Zeros or Bytes.
        attributes: mode (the permission bits that all files have in common), uid, gid, mtime (the
            youngest file's) and path, as `Entry` has them.

    Raises:
        TypeError: a part has no bytes that could be put together.
    """

    __slots__ = ("_digest", "parts")

    def __init__(
        self,
        parts: Iterable[PathLike | Blob],
        /,
        **attributes: Unpack[Given],
    ) -> None:
        super().__init__(**attributes)
        if isinstance(parts, str | bytes | Entry):
            raise TypeError(f"Concat takes a list of parts, not {parts!r}")
        flat: list[Blob] = []
        for part in map(blob, parts):
            flat.extend(part.parts if isinstance(part, Concat) else [part])
        self.parts: tuple[Blob, ...] = tuple(flat)
        self._digest: bytes | None = None

    def runs(self, sources: Sources) -> Runs:
        """Return the parts' runs; a single part's as they are."""
        if len(self.parts) == 1:
            return self.parts[0].runs(sources)
        return joined(part.runs(sources) for part in self.parts)

    def key(self) -> object:
        """Return a digest of the parts' keys, of which there may be many, and the attributes."""
        if self._digest is None:
            text = repr([part.key() for part in self.parts])
            self._digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()
        return "concat", self._digest, attributes_key(self)

    def describe(self) -> str:
        """Return how many parts it has."""
        return f"Concat of {len(self.parts):,} parts"


class Zeros(Blob):
    """A hole: `length` bytes of zeros that take no memory and no disk.

    Parameters:
        length: in bytes.
        attributes: mode (0o444), uid, gid, mtime (when the tree was made) and path, as `Entry` has
            them.

    Raises:
        TypeError, ValueError: `length` is no int, negative or beyond 2**63 - 1.
    """

    __slots__ = ("length",)

    def __init__(self, length: int, /, **attributes: Unpack[Given]) -> None:
        super().__init__(**attributes)
        self.length = whole_number("length", length)

    def runs(self, sources: Sources) -> Runs:
        """Return one run without a source."""
        return Runs((Run(None, 0, self.length),) if self.length else ())

    def key(self) -> object:
        """Return the length and the attributes."""
        return "zeros", self.length, attributes_key(self)

    def describe(self) -> str:
        """Return the length."""
        return f"Zeros: a hole of {self.length:,} bytes"


def content_of(value: object, name: str | bytes | None = None) -> Content:
    """Return what `value` is in a directory: an entry or a tree itself, of a path the file.

    Raises TypeError for any other value, with the `name` that it was to have.
    """
    if isinstance(value, Entry | Tree):
        return value
    if isinstance(value, str | bytes | os.PathLike):
        return File(value)
    where = "" if name is None else f"{name!r}: "
    raise TypeError(
        f"{where}a directory holds paths and entries such as File, Slice, Dir or Mirror,"
        f" not {value!r}"
    )


def blob(part: object) -> Blob:
    """Return `part`, or the file that it is the path of; raise TypeError for anything else."""
    if isinstance(part, Blob):
        return part
    if isinstance(part, str | bytes | os.PathLike):
        return File(part)
    raise TypeError(f"a part is a path or a File, Slice, Concat, Zeros or Bytes, not {part!r}")


def _within(size: int | None, offset: int, length: int | None) -> bool:
    """Whether a range is known to lie within a slice of `size` bytes, or ends where that does."""
    if size is None:
        return True
    return offset + length <= size if length is not None else offset < size
