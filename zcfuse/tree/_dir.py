"""Directories of a program's own: with fixed names, changed by the program, or asked for each time.

A `Dir` may be changed while it is mounted, in the trio thread that mounts it. It tells the trees
that show it, and they tell the kernel.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeAlias, Unpack

from zcfuse.tree._content import content_of
from zcfuse.tree._entry import Content, Entry, Given, PathLike, attributes_key
from zcfuse.tree._types import Tree, Who

NAME_BYTES: Final = 255  # NAME_MAX (limits.h), as on most filesystems
_SERIAL: Final = itertools.count(1)

Held: TypeAlias = "Content | PathLike"
"""What a directory may be given: an entry, a tree, or the path of a file."""


class _Place(Protocol):
    """Where a directory is shown."""

    def name_changed(self, name: bytes) -> None:
        """Take note that a name means something else now."""


class Dir(Entry):
    """A directory.

    It holds what it is given, by name. A subclass that defines ``lookup`` or ``list`` is asked
    instead, each time and with the process that asks: such a directory is *dynamic*. Unless it says
    ``volatile = False`` nothing that it answers is cached, neither what a name means nor which
    names there are, so that each client gets its own answer.

    Clients that have a file open keep its bytes when the program removes or replaces it. A listing
    under way leaves out names that are gone, and may show names that came after it began.

    Parameters:
        entries: what the directory holds, by name. A name is text, or bytes where it is no text. A
            path stands for the `File` of that path.
        key: of a dynamic directory's answer that is a directory made anew each time: equal keys
            under one name are one directory to the client. None: every Dir is a directory of its
            own. Its repr must say all of it.
        attributes: mode (0o555), uid, gid and mtime (of the last change), as `Entry` has them.

    Raises:
        TypeError: what is to be held is no entry and no tree.
        ValueError: a name is empty, a dot name, longer than 255 bytes, or has a slash or a NUL.

    A Dir put in two places is two directories with the same contents.
    """

    __slots__ = (
        "__weakref__",
        "_changed_ns",
        "_directories",
        "_entries",
        "_key",
        "_places",
    )

    kind = stat.S_IFDIR
    volatile: bool = False
    """Whether what it answers may not be cached; True by itself in a dynamic subclass."""
    dynamic: bool = False
    """Whether `lookup` or `list` is a subclass's own; never set it."""
    by_value: bool = True
    """Whether `names` and `get` say all that it holds at any time; False where a subclass overrides
    one of them, unless it says otherwise: the program must then announce every change."""
    _says_volatile: bool = False
    entry_origin: str = ""
    """What is said of its entries behind what they are themselves, as in " (of a manifest)"."""

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401 - object's
        super().__init_subclass__(**arguments)
        cls.dynamic = cls.lookup is not Dir.lookup or cls.list is not Dir.list
        if "by_value" not in vars(cls):
            cls.by_value = not cls.dynamic and cls.get is Dir.get and cls.names is Dir.names
        if "volatile" in vars(cls):
            cls._says_volatile = True
        elif not cls._says_volatile:
            cls.volatile = cls.dynamic

    def __init__(
        self,
        entries: Mapping[str, Held] | Mapping[bytes, Held] | None = None,
        /,
        *,
        key: object = None,
        **attributes: Unpack[Given],
    ) -> None:
        super().__init__(**attributes)
        self._key = ("made", next(_SERIAL)) if key is None else ("given", key)
        self._entries: dict[bytes, Content] = {}
        self._directories = 0
        self._places: weakref.WeakSet[Any] | None = None
        self._changed_ns = time.time_ns()
        for name, entry in (entries or {}).items():
            self._put(checked_name(name), content_of(entry, name))

    async def lookup(self, name: str, who: Who) -> Content | None:
        """Return what `name` is to the process `who`. To be overridden.

        Runs in a trio task of the mount's, several at once. None or FileNotFoundError: there is no
        such name. Another OSError is the client's errno; any other exception is EIO to the client,
        with a traceback in the log. One that is not back within the mount's `answer_timeout` is
        cancelled, which is ETIMEDOUT to the client.
        """
        return self.get(name)

    async def list(self, who: Who) -> Iterable[str]:
        """Return the names that the process `who` sees. To be overridden.

        A mapping from names to entries spares a `lookup` of each name, and may make its values when
        they are asked for. Exceptions and time are as `lookup` has them.
        """
        return [os.fsdecode(name) for name in self.names()]

    def get(self, name: str | bytes) -> Content | None:
        """Return what `name` means, None where it is missing.

        A subclass may override it and `names` for content that is made when it is asked for,
        the same for everybody. It must not wait.
        """
        return self._entries.get(os.fsencode(name))

    def names(self) -> Iterable[bytes]:
        """Return the names that it holds; a sequence that is not mutable is not copied."""
        return tuple(self._entries)

    def directories(self) -> int | None:
        """Return how many of the names are directories, None if that is not known."""
        known = type(self).names is Dir.names and not self.dynamic
        return self._directories if known else None

    def add(self, name: str | bytes, entry: Held) -> None:
        """Hold `entry` as `name` from now on.

        Raises:
            FileExistsError: the name is there already.
            TypeError, ValueError: as for the constructor.
        """
        checked = checked_name(name)
        if checked in self._entries:
            raise FileExistsError(f"{name!r} is there already")
        self._put(checked, content_of(entry, name))
        self._tell(checked)

    def replace(self, name: str | bytes, entry: Held) -> Content | None:
        """Hold `entry` as `name` from now on, and return what it was before.

        Clients that have the old file open keep its bytes. Raises TypeError and ValueError as the
        constructor does.
        """
        checked = checked_name(name)
        content = content_of(entry, name)
        before = self._take(checked)
        self._put(checked, content)
        self._tell(checked)
        return before

    def remove(self, name: str | bytes) -> Content:
        """Hold nothing as `name` any more, and return what it was.

        Clients that have the file open keep its bytes.

        Raises:
            FileNotFoundError: the name is not there.
        """
        checked = os.fsencode(name)
        before = self._take(checked)
        if before is None:
            raise FileNotFoundError(f"{name!r} is not there")
        self._tell(checked)
        return before

    def changed(self, *names: str | bytes) -> None:
        """Have the kernel ask again what these names mean.

        For a dynamic directory whose answers are cached, and for one that overrides `get`.
        """
        for name in names:
            self._tell(checked_name(name))

    @property
    def changed_ns(self) -> int:
        """When a name last came or went, in nanoseconds since the epoch."""
        return self._changed_ns

    def key(self) -> object:
        """Return which directory it is, and the attributes."""
        return "dir", self._key, attributes_key(self)

    def show(self, place: _Place) -> None:
        """Tell `place` of changes for as long as it lives. For trees."""
        if self._places is None:
            self._places = weakref.WeakSet()
        self._places.add(place)

    @classmethod
    def from_paths(cls, paths: Mapping[str, Held], /) -> Dir:
        """Return a directory with all the directories that `paths` need.

        Parameters:
            paths: what the tree holds, by its path from the top: ``{"train/1.jpg": "/data/x.jpg"}``
                shows a file in a directory. A path as value stands for the `File` of that path.

        Raises:
            TypeError: a value is no path, no entry and no tree.
            ValueError: a path has a part that is no name, or leads through a file.
        """
        top = cls()
        made: dict[str, Dir] = {"": top}
        for path, entry in paths.items():
            if path.startswith("/"):
                raise ValueError(f"{path!r}: give the path from the top of the tree, as 'a/b'")
            above, _, name = path.rpartition("/")
            directory = made.get(above) or _directory_at(top, above, path, made)
            checked = checked_name(name)
            if checked in directory._entries:
                raise ValueError(f"{path!r} is a directory and an entry")
            directory._put(checked, content_of(entry, path))
        return top

    def __contains__(self, name: str | bytes) -> bool:
        return os.fsencode(name) in self._entries

    def __getitem__(self, name: str | bytes) -> Content:
        return self._entries[os.fsencode(name)]

    def __iter__(self) -> Iterator[str]:
        return map(os.fsdecode, tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        names = "" if self.dynamic else f" of {len(self):,} names"
        return f"<{type(self).__qualname__}{names}>"

    def __bool__(self) -> bool:
        return True

    def _put(self, name: bytes, entry: Content) -> None:
        self._entries[name] = entry
        self._directories += _is_directory(entry)

    def _take(self, name: bytes) -> Content | None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._directories -= _is_directory(entry)
        return entry

    def _tell(self, name: bytes) -> None:
        self._changed_ns = time.time_ns()
        for place in tuple(self._places or ()):
            place.name_changed(name)


def _directory_at(top: Dir, path: str, wanted: str, made: dict[str, Dir]) -> Dir:
    """Return the directory at `path`, made where it is missing; `wanted` is what needs it."""
    at = top
    parts = path.split("/")
    for depth, part in enumerate(parts, 1):
        here = "/".join(parts[:depth])
        name = checked_name(part)
        if name not in at._entries:
            made[here] = Dir()
            at._put(name, made[here])
        elif here not in made:
            raise ValueError(f"{wanted!r} leads through {here!r}, an entry")
        at = made[here]
    return at


def checked_name(name: str | bytes) -> bytes:
    """Return a name as the kernel has it; raise TypeError or ValueError for what is none."""
    if not isinstance(name, str | bytes):
        raise TypeError(f"a name must be str or bytes, not {name!r}")
    encoded = os.fsencode(name)
    if not encoded or encoded in (b".", b"..") or b"/" in encoded or b"\0" in encoded:
        raise ValueError(f"not a name for a directory entry: {name!r}")
    if len(encoded) > NAME_BYTES:
        raise ValueError(f"the name is longer than {NAME_BYTES} bytes: {name!r}")
    return encoded


def _is_directory(entry: Content) -> bool:
    return isinstance(entry, Dir | Tree)
