"""Directories that a program makes: fixed, changed while mounted, or computed at each request.

The program may change a mounted `Dir` in the trio thread that mounts it. The Dir notifies the trees
that show it, and they notify the kernel.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Protocol, TypeAlias, Unpack

from zcfuse.arguments import require_type
from zcfuse.datapath import NAME_BYTES
from zcfuse.tree._content import File, content_of
from zcfuse.tree._entry import Content, Entry, Given, PathLike, attributes_key
from zcfuse.tree._leased import Leased, LeasedNames
from zcfuse.tree._packed import packed
from zcfuse.tree._types import Tree, Who

_SERIAL: Final = itertools.count(1)

TreeLike: TypeAlias = "Tree | Dir | PathLike"
"""A tree, or what stands for one: a `Dir`, or the path of a directory, which means its `Mirror`."""

Held: TypeAlias = "Content | PathLike"
"""The contents that a directory accepts: an entry, a tree, or the path of a file."""


class DirPlace(Protocol):
    """A place that shows a directory."""

    def name_changed(self, name: bytes) -> None:
        """Note that a name means something else now."""


class Dir(Entry):
    """A directory.

    It holds entries by name. A subclass that defines ``lookup`` or ``list`` is *dynamic*: the mount
    asks it at each request and passes the client's process. The kernel caches no answer of a
    dynamic directory, neither meanings of names nor listings, so that each client gets a separate
    answer. ``volatile = False`` permits caching.

    Clients that have a file open keep its bytes when the program removes or replaces it. A listing
    in progress leaves out removed names, and may show names added after it began.

    Parameters:
        entries: the contents by name. A name is text, or bytes if it is not valid text. A path
            stands for the `File` of that path.
        key: identifies a directory that a dynamic directory makes again for each answer: equal keys
            under one name are one directory to the client. None: every Dir object is a different
            directory. The key's repr must be complete.
        attributes: mode (0o555), uid, gid and mtime (of the last change), as `Entry` has them.

    Raises:
        TypeError: a value is neither an entry nor a tree nor a path.
        ValueError: a name is empty, a dot name, longer than 255 bytes, or has a slash or a NUL.

    A Dir in two places is two directories with the same contents.
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
    """Whether the kernel must not cache its answers; True by default in a dynamic subclass."""
    dynamic: bool = False
    """Whether a subclass defines `lookup` or `list`; never set it."""
    by_value: bool = True
    """Whether `names` and `get` always give the whole contents. By default False if a subclass
    overrides one of them or `may_open`. A subclass that sets it to True must announce every
    change."""
    leases: bool = False
    """Whether `lookup` may return `Leased` and `list` `LeasedNames`. The data path then holds
    them, and the program must call `changed` when one ends early. Not together with `may_open`."""
    _says_volatile: bool = False
    entry_origin: str = ""
    """A suffix for descriptions of its entries, such as " (of a manifest)"."""

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401 - object's
        super().__init_subclass__(**arguments)
        cls.dynamic = cls.lookup is not Dir.lookup or cls.list is not Dir.list
        if "by_value" not in vars(cls):
            cls.by_value = not cls.dynamic and all(
                getattr(cls, name) is getattr(Dir, name) for name in ("get", "names", "may_open")
            )
        if cls.leases and cls.may_open is not Dir.may_open:
            raise TypeError(f"{cls.__name__}: leased answers are opened without may_open")
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
        # The path of a plain file stands for its File, which would take more memory.
        self._entries: MutableMapping[bytes, Content | bytes] = {}
        self._directories = 0
        self._places: weakref.WeakSet[Any] | None = None
        self._changed_ns = time.time_ns()
        if entries is not None:
            require_type("entries", entries, Mapping, "a mapping of names")
        for name, entry in (entries or {}).items():
            self._put(checked_name(name), content_of(entry, name))

    async def lookup(self, name: str, who: Who) -> Content | Leased | None:
        """Return the meaning of `name` to the process `who`. Override it.

        The mount runs it in a trio task, several at once. None or FileNotFoundError: the name is
        missing. The client gets the errno of any other OSError. For other exceptions the client
        gets EIO and the log a traceback. After the mount's `answer_timeout` the call is cancelled,
        and the client gets ETIMEDOUT.
        """
        return self.get(name)

    async def list(self, who: Who) -> Iterable[str] | LeasedNames:
        """Return the names that the process `who` sees. Override it.

        A mapping from names to entries saves a `lookup` of each name, and may make its values on
        access. Exceptions and the time-out work as for `lookup`.
        """
        return [os.fsdecode(name) for name in self.names()]

    async def may_open(self, name: str, who: Who) -> None:
        """Raise OSError where the process `who` may not open the file `name`. To be overridden.

        Called at each open, also of a file that others have open. Exceptions and time are as
        `lookup` has them. Python is asked for each open in a directory that overrides it.
        """

    def get(self, name: str | bytes) -> Content | None:
        """Return the meaning of `name`, or None if it is missing.

        A subclass may override it and `names` to make entries on demand, the same for every client.
        It must not wait.
        """
        return _entry(self._entries.get(os.fsencode(name)))

    def names(self) -> Iterable[bytes]:
        """Return the names; callers copy a mutable sequence."""
        return tuple(self._entries)

    def directories(self) -> int | None:
        """Return the number of subdirectories, or None if unknown."""
        known = type(self).names is Dir.names and not self.dynamic
        return self._directories if known else None

    def subtrees(self) -> Iterable[Tree]:
        """Return the trees that the directory holds without `get` and `names`, for the status."""
        return ()

    def add(self, name: str | bytes, entry: Held) -> None:
        """Hold `entry` as `name` from now on.

        Raises:
            FileExistsError: the name exists already.
            TypeError, ValueError: as for the constructor.
        """
        checked = checked_name(name)
        if checked in self._entries:
            raise FileExistsError(f"{name!r} is there already")
        self._put(checked, content_of(entry, name))
        self._tell(checked)

    def replace(self, name: str | bytes, entry: Held) -> Content | None:
        """Hold `entry` as `name` from now on; return the old entry.

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
        """Remove `name` and return its entry.

        Clients that have the file open keep its bytes.

        Raises:
            FileNotFoundError: the name is missing.
        """
        checked = os.fsencode(name)
        before = self._take(checked)
        if before is None:
            raise FileNotFoundError(f"{name!r} is not there")
        self._tell(checked)
        return before

    def changed(self, *names: str | bytes) -> None:
        """Make the kernel ask again for these names, and end their leases and those of listings.

        Needed for a dynamic directory whose answers are cached or leased, and for one that
        overrides `get`. Without names it ends the leases of listings alone.
        """
        for name in names:
            self._tell(checked_name(name))
        if not names and self.leases:
            self._tell(b"")

    @property
    def changed_ns(self) -> int:
        """The time of the last change of names, in nanoseconds since the epoch."""
        return self._changed_ns

    def key(self) -> object:
        """Return the directory's identity and the attributes."""
        return "dir", self._key, attributes_key(self)

    def show(self, place: DirPlace) -> None:
        """Notify `place` of changes while it lives. For trees."""
        if self._places is None:
            self._places = weakref.WeakSet()
        self._places.add(place)

    @classmethod
    def from_paths(cls, paths: Mapping[str, Held], /) -> Dir:
        """Return a directory, with every subdirectory that `paths` need.

        Parameters:
            paths: the contents by path from the top: ``{"train/1.jpg": "/data/x.jpg"}`` shows a
                file in a directory. A path as value stands for the `File` of that path.

        Raises:
            TypeError: a value is neither a path nor an entry nor a tree.
            ValueError: a path has a part that is no name, or leads through a file.
        """
        require_type("paths", paths, Mapping, "a mapping of paths")
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
            content = content_of(entry, path)
            if type(content) is File and content.is_plain:
                directory._entries[checked] = content.file
            else:
                directory._put(checked, content)
        for directory in made.values():
            directory._entries = packed(directory._entries)
        return top

    def __contains__(self, name: str | bytes) -> bool:
        return os.fsencode(name) in self._entries

    def __getitem__(self, name: str | bytes) -> Content:
        held = self._entries[os.fsencode(name)]
        return File(held) if isinstance(held, bytes) else held

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
        entry = _entry(self._entries.pop(name, None))
        if entry is not None:
            self._directories -= _is_directory(entry)
        return entry

    def _tell(self, name: bytes) -> None:
        self._changed_ns = time.time_ns()
        for place in tuple(self._places or ()):
            place.name_changed(name)


def _entry(held: Content | bytes | None) -> Content | None:
    return File(held) if isinstance(held, bytes) else held


def _directory_at(top: Dir, path: str, wanted: str, made: dict[str, Dir]) -> Dir:
    """Return the directory at `path`; make it if missing. `wanted` is the path that needs it."""
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
    """Return a name as bytes; raise TypeError or ValueError for an invalid one."""
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
