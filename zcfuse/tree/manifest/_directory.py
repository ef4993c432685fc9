"""Directories of a manifest, which create entries from an index on demand."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from zcfuse.tree._bytes import Bytes
from zcfuse.tree._content import Blob, Concat, File, Slice, Zeros
from zcfuse.tree._dir import Dir
from zcfuse.tree._entry import Content, Given, Symlink
from zcfuse.tree._mirror import Mirror
from zcfuse.tree._renewal import Renewable, RenewalError
from zcfuse.tree._types import Tree
from zcfuse.tree.manifest._columns import (
    DIRECTORY,
    FILE,
    PARTS,
    REMOTE,
    SYMLINK,
    TEXT,
    TO_THE_END,
    ZEROS,
    Row,
)
from zcfuse.tree.manifest._differences import changed_names
from zcfuse.tree.manifest._errors import ManifestError
from zcfuse.tree.manifest._given import NO_TIME
from zcfuse.tree.manifest._index import ROOT, Index, Mirrored

_SECOND_NS: Final = 1_000_000_000
_SERIAL: Final = itertools.count(1)
_SHARED_FILES: Final = 256


class Entries:
    """Creates the entries of one manifest. Used in the trio thread of its mount."""

    def __init__(self, index: Index, remote: Callable[[str], Tree] | None = None) -> None:
        self.index = index
        self._remote = remote
        self._remotes: dict[str, Tree] = {}
        self.serial: Final = next(_SERIAL)
        # One entry for all texts: each is a slice of it. The source bytes are dropped.
        self._texts: Blob | None = Bytes(index.texts) if index.texts else None
        index.texts = bytearray()
        self._mirrors: dict[Mirrored, Mirror] = {}
        self._files: dict[int, File] = {}

    def entry(self, number: int) -> Content:
        """Return the entry of a node."""
        row = self.index.content(number)
        kind, source, offset, length = row
        if kind == DIRECTORY:
            return ManifestDir(self, number)
        if kind == FILE:
            return self._range(row, self._given(number, dated=False))
        if kind in (TEXT, ZEROS):
            return self._range(row, self._given(number, dated=True))
        if kind == PARTS:
            rows = self.index.parts(row)
            given = self._given(number, dated=all(part[0] != FILE for part in rows))
            return Concat([self._range(part, {}) for part in rows], **given)
        if kind == SYMLINK:
            target = self.index.targets[offset : offset + length]
            return Symlink(target, **self._given(number, dated=True))
        return self.remote(source) if kind == REMOTE else self.mirror(source)

    def attributes(self, number: int) -> Given:
        """Return the attributes of a directory."""
        return self._given(number, dated=True)

    def _given(self, number: int, *, dated: bool) -> Given:
        """Return a node's attributes; `dated` uses the manifest's time by default."""
        attributes, mtime_ns = self.index.given(number)
        if mtime_ns == NO_TIME and dated:
            mtime_ns = self.index.mtime_ns
        return Given(
            mode=attributes.mode,
            uid=attributes.uid,
            gid=attributes.gid,
            mtime=None if mtime_ns == NO_TIME else _seconds(mtime_ns),
            path=attributes.serve,
        )

    def _range(self, row: Row, given: Given) -> Blob:
        kind, source, offset, length = row
        if kind == ZEROS:
            return Zeros(length, **given)
        if kind == TEXT:
            if self._texts is None:
                return Zeros(0, **given)
            return Slice(self._texts, offset, length, **given)
        if offset == 0 and length == TO_THE_END:
            return File(self.index.files.path(source), **given)
        return Slice(self._file(source), offset, None if length == TO_THE_END else length, **given)

    def _file(self, number: int) -> File:
        """Return the entry of a file, the same for many slices of it."""
        found = self._files.get(number)
        if found is None:
            if len(self._files) >= _SHARED_FILES:
                self._files.clear()
            found = self._files[number] = File(self.index.files.path(number))
        return found

    def mirror(self, number: int) -> Mirror:
        """Return the single tree of a real directory, which stays open from now on."""
        mirrored = self.index.mirrors[number]
        found = self._mirrors.get(mirrored)
        if found is None:
            found = Mirror(mirrored.directory, coherence=mirrored.coherence)
            self._mirrors[mirrored] = found
        return found

    def remote(self, number: int) -> Tree:
        """Return the single tree of a URL."""
        url = self.index.urls[number]
        found = self._remotes.get(url)
        if found is None:
            assert self._remote is not None, "the builder refuses URLs without it"
            found = self._remotes[url] = self._remote(url)
        return found

    def take_trees(self, other: Entries) -> None:
        """Use the trees of the same directories and URLs that an earlier manifest made."""
        self._mirrors = other._mirrors
        self._remotes = other._remotes


class ManifestFile(Protocol):
    """The file of a manifest."""

    @property
    def directory(self) -> bytes:
        """The directory that it lies in."""

    def read_if_changed(self) -> Entries | None:
        """Read it if it has changed since the last time. Raises OSError, ManifestError."""


class ManifestDir(Dir, Renewable):
    """A directory of a manifest. `load_manifest` returns the topmost.

    A program cannot change its contents (`add`, `replace` and `remove` raise TypeError). Another
    Dir may hold the directory and replace it. A mount that pushes changes reads a changed manifest
    again.
    """

    __slots__ = ("_file", "_made", "_next", "_number")

    entry_origin = " (of a manifest)"
    by_value = True

    def __init__(
        self, entries: Entries, number: int = ROOT, file: ManifestFile | None = None
    ) -> None:
        super().__init__(key=("manifest", entries.serial, number), **entries.attributes(number))
        self._made = entries
        self._number = number
        self._next = ROOT  # the likely place of the next name
        self._file = file  # the topmost has one

    def watched(self) -> Collection[bytes]:
        """Return the directory of the manifest."""
        return () if self._file is None else (self._file.directory,)

    def look(self) -> Callable[[], None] | None:
        """Read the manifest again if it has changed. Raises RenewalError."""
        try:
            entries = None if self._file is None else self._file.read_if_changed()
        except (ManifestError, OSError) as error:
            raise RenewalError(str(error)) from error
        if entries is None:
            return None
        names = changed_names(self._made.index, entries.index)
        return partial(self._show, entries, names)

    def _show(self, entries: Entries, names: Sequence[bytes]) -> None:
        entries.take_trees(self._made)
        self._made = entries
        self._next = ROOT
        self.changed(*names)

    def get(self, name: str | bytes) -> Content | None:
        """Return the entry of `name`, or None."""
        number = self._find(name)
        return None if number is None else self._made.entry(number)

    def names(self) -> Sequence[bytes]:
        """Return its names, sorted, as a sequence that creates each on access."""
        return self._made.index.names(self._number)

    def directories(self) -> int | None:
        """Return the number of subdirectories."""
        return self._made.index.directories(self._number)

    @property
    def changed_ns(self) -> int:
        """The manifest's modification time, in nanoseconds since the epoch."""
        return self._made.index.mtime_ns

    @property
    def nodes(self) -> int:
        """The number of nodes in the manifest, including implied directories."""
        return len(self._made.index)

    @property
    def urls(self) -> Sequence[str]:
        """The URLs in the manifest."""
        return self._made.index.urls

    def subtrees(self) -> Sequence[Tree]:
        """Return the trees of its URLs, and the mirrors with a mode; the first call makes them."""
        trees: list[Tree] = [self._made.remote(number) for number in range(len(self.urls))]
        for number, mirrored in enumerate(self._made.index.mirrors):
            if mirrored.coherence is not None:
                trees.append(self._made.mirror(number))
        return trees

    @property
    def unchecked_files(self) -> int:
        """The number of files that were not checked at load time."""
        return self._made.index.files.unchecked

    def __contains__(self, name: str | bytes) -> bool:
        return self._find(name) is not None

    def __getitem__(self, name: str | bytes) -> Content:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, self.names())

    def __len__(self) -> int:
        return len(self._made.index.names(self._number))

    def _find(self, name: str | bytes) -> int | None:
        found = self._made.index.find(self._number, os.fsencode(name), self._next)
        if found is not None:
            self._next = found + 1
        return found

    def _put(self, name: bytes, entry: Content) -> None:
        raise TypeError("what a manifest says cannot be changed")

    def _take(self, name: bytes) -> Content | None:
        raise TypeError("what a manifest says cannot be changed")


def _seconds(time_ns: int) -> float:
    seconds, rest = divmod(time_ns, _SECOND_NS)
    return time_ns / _SECOND_NS if rest else seconds
