"""Files made of other files: whole ones, slices, concatenations and holes.

An entry holds paths, not descriptors. A tree finds a file's bytes when a client looks at the node
or opens it.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Iterable
from typing import Final, Unpack

from zcfuse.arguments import require_path
from zcfuse.tree._entry import Content, Entry, Given, PathLike, attributes_key, whole_number
from zcfuse.tree._paths import absolute
from zcfuse.tree._sources import Run, Runs, Sources, joined
from zcfuse.tree._types import Tree

_DIGEST_BYTES: Final = 16


class Blob(Entry):
    """An entry that has bytes: File, Slice, Concat, Zeros, Bytes or Computed."""

    __slots__ = ()

    is_made: bool = False
    """Whether a program makes some of the bytes when they are read."""

    @abstractmethod
    def runs(self, sources: Sources) -> Runs:
        """Return the runs that make it up, with the files that `sources` opens or looks at.

        Raises OSError where one of them cannot be.
        """


class File(Blob):
    """A whole regular file.

    It has the file's size at the time of a read, and uses passthrough if the kernel allows it. At
    each look and open the daemon follows symbolic links in `file`, with its own rights. A relative
    path starts at the present working directory.

    Parameters:
        file: path of a regular file, which may not exist yet: then the name is missing. For other
            kinds a lookup fails: EISDIR for a directory; EINVAL for a FIFO, socket or device, which
            the daemon never waits for.
        attributes: mode (the file's permission bits), uid, gid, mtime (the file's) and path, as
            `Entry` has them.

    Raises:
        ValueError: the path is empty or has a NUL.
    """

    __slots__ = ("file",)

    def __init__(self, file: PathLike, /, **attributes: Unpack[Given]) -> None:
        super().__init__(**attributes)
        require_path("file", file)
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

    If the file has fewer bytes, the slice ends with the file, like pread(2). Within a `Concat` such
    a slice ends the whole file, so that no byte appears at a wrong offset.

    Parameters:
        of: a path, or a File, Slice, Concat, Zeros, Bytes or Computed.
        offset: in bytes.
        length: in bytes; None: to the end.
        attributes: mode (the file's permission bits), uid, gid, mtime (the file's) and path, as
            `Entry` has them.

    Raises:
        TypeError: `of` has no bytes that could be sliced; offset or length is no int.
        ValueError: offset or length is negative or beyond 2**63 - 1; a `path` of Computed bytes.
    """

    __slots__ = ("is_made", "length", "of", "offset")

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
        inner = blob("of", of)
        self.is_made = inner.is_made
        refuse_path(self)
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
    """The parts, one after the other.

    An open fixes each part's offset from the sizes of the parts before it. Until the close, a part
    that grows shows no more bytes, except the last one: ``tail -f`` follows a log at the end. A
    part that is too short ends the whole file, like a truncation. With a `Computed` part, each read
    is an upcall.

    Parameters:
        parts: each a path or a File, Slice, Concat, Zeros, Bytes or Computed.
        attributes: mode (the permission bits that all files have in common), uid, gid, mtime (the
            youngest file's) and path, as `Entry` has them.

    Raises:
        TypeError: a part has no bytes to concatenate.
        ValueError: a `path` is given with a Computed part.
    """

    __slots__ = ("_digest", "is_made", "parts")

    def __init__(
        self,
        parts: Iterable[PathLike | Blob],
        /,
        **attributes: Unpack[Given],
    ) -> None:
        super().__init__(**attributes)
        if isinstance(parts, str | bytes | Entry) or not isinstance(parts, Iterable):
            raise TypeError(f"parts must be a list of paths and entries, not {parts!r}")
        flat: list[Blob] = []
        for part in parts:
            made = blob("parts", part)
            flat.extend(made.parts if isinstance(made, Concat) else [made])
        self.parts: tuple[Blob, ...] = tuple(flat)
        self.is_made = any(part.is_made for part in flat)
        refuse_path(self)
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


def blob(name: str, part: object) -> Blob:
    """Return `part`, or the file of a path; raise TypeError with the argument's name otherwise."""
    if isinstance(part, Blob):
        return part
    if isinstance(part, str | bytes | os.PathLike):
        return File(part)
    raise TypeError(
        f"{name}: give a path or a File, Slice, Concat, Zeros, Bytes or Computed, not {part!r}"
    )


def refuse_path(entry: Blob) -> None:
    """Raise ValueError where a program makes the bytes and a serving path was given."""
    if entry.is_made and entry.overrides.path:
        raise ValueError(
            f"path={entry.overrides.path!r}: Computed bytes travel by upcall, no path can be chosen"
        )


def _within(size: int | None, offset: int, length: int | None) -> bool:
    """Whether a range is known to lie within a slice of `size` bytes, or ends where that does."""
    if size is None:
        return True
    return offset + length <= size if length is not None else offset < size
