"""Entries: the values that a program builds a tree from before it mounts anything.

An entry is not a node: a `Dir` gives it a name and a place, and a tree makes a node of it at the
first lookup. Any thread may make and read entries.
"""

from __future__ import annotations

import os
import stat
from typing import Final, TypeAlias, TypedDict, Unpack

import msgspec

from zcfuse.arguments import require_number, require_path, require_type
from zcfuse.options import SERVING_PATHS
from zcfuse.tree._types import Tree

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Of one file: naive is only a whole mount.
ENTRY_PATHS: Final = frozenset(SERVING_PATHS) - {"naive"}
LARGEST: Final = 2**63 - 1  # off_t

_PERMISSIONS: Final = 0o7777
_SECOND_NS: Final = 1_000_000_000
LARGEST_ID: Final = 2**32 - 2  # uid_t without -1, which chown(2) takes for "leave it"


class Overrides(msgspec.Struct, frozen=True, gc=False):
    """The attributes that the program gave an entry by keyword; None for the others."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    path: str = ""


_NONE: Final = Overrides()
_NOTHING: Final = (None,) * 5


class Given(TypedDict, total=False):
    """The keyword arguments of every entry, as in `Entry`."""

    mode: int | None
    uid: int | None
    gid: int | None
    mtime: float | None
    path: str | None


class Entry:
    """The base class of a `Dir`'s contents. Use a subclass.

    Parameters:
        mode: permission bits, as for chmod(2); None: the subclass's default.
        uid: owner; None: the user who mounts.
        gid: group; None: the group of the user who mounts.
        mtime: time of last modification, in seconds since the epoch; None: the subclass's default.
        path: the serving path for this file alone, one of ``auto``, ``upcall``, ``pool``, ``mmap``,
            ``splice`` and ``passthrough``; None: the mount's choice. If a path is unavailable, the
            mount uses the next best and counts the reason.

    Raises:
        TypeError, ValueError: an attribute has the wrong type or is out of range.
    """

    __slots__ = ("_overrides",)

    kind: int = stat.S_IFREG

    def __init__(
        self,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime: float | None = None,
        path: str | None = None,
    ) -> None:
        if (mode, uid, gid, mtime, path) == _NOTHING:
            self._overrides = _NONE
            return
        self._overrides = Overrides(
            None if mode is None else whole_number("mode", mode, _PERMISSIONS),
            None if uid is None else whole_number("uid", uid, LARGEST_ID),
            None if gid is None else whole_number("gid", gid, LARGEST_ID),
            None if mtime is None else _nanoseconds(mtime),
            _serving_path(path),
        )

    @property
    def overrides(self) -> Overrides:
        """The attributes that the program gave by keyword."""
        return self._overrides

    @property
    def is_plain(self) -> bool:
        """Whether the program gave no attribute by keyword."""
        return self._overrides is _NONE

    def key(self) -> object:
        """Return a value that identifies the entry; its repr must be complete.

        If a name's entry is replaced by one with an equal key, the kernel sees the same file, with
        one inode number and one page cache. With another key it sees another file.
        """
        raise NotImplementedError(f"{type(self).__name__} is no entry: use one of its subclasses")

    def describe(self) -> str:
        """Describe the entry in a few words, for `zcfuse explain`."""
        return type(self).__qualname__

    def __repr__(self) -> str:
        return f"<{self.describe()}>"


Content: TypeAlias = "Entry | Tree"
"""The content of a name in a `Dir`: an entry, or a whole tree, such as a Mirror."""


class Symlink(Entry):
    """A symbolic link to `target`, which the client's kernel follows. Mode 0o777.

    Raises:
        ValueError: the target is empty, has a NUL or is longer than PATH_MAX allows (4095 bytes).
    """

    __slots__ = ("target",)

    kind = stat.S_IFLNK

    def __init__(self, target: PathLike, /, **attributes: Unpack[Given]) -> None:
        super().__init__(**attributes)
        require_path("target", target)
        self.target = os.fsencode(target)
        if not 0 < len(self.target) <= 4095 or b"\0" in self.target:
            raise ValueError(f"not a target for a symbolic link: {target!r}")

    def key(self) -> object:
        """Return the target and the attributes."""
        return "symlink", self.target, attributes_key(self)

    def describe(self) -> str:
        """Return the target."""
        return f"Symlink to {os.fsdecode(self.target)}"


def attributes_key(entry: Entry) -> object:
    """Return the attributes given by keyword, for an entry's key."""
    return None if entry.overrides is _NONE else msgspec.structs.astuple(entry.overrides)


def whole_number(name: str, value: object, largest: int = LARGEST) -> int:
    """Return a number from 0 to `largest`, or raise TypeError or ValueError that names it."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if not 0 <= value <= largest:
        raise ValueError(f"{name}={value}: give a number from 0 to {largest}")
    return value


def _nanoseconds(seconds: float) -> int:
    require_number("mtime", seconds, "seconds")
    if not -LARGEST - 1 <= seconds <= LARGEST:  # NaN fails this comparison too
        raise ValueError(f"mtime={seconds}: give seconds that fit 64 bits")
    if isinstance(seconds, int):
        return seconds * _SECOND_NS
    return round(seconds * _SECOND_NS)


def _serving_path(path: str | None) -> str:
    if path is None:
        return ""
    require_type("path", path, str, "a serving path")
    if path not in ENTRY_PATHS:
        raise ValueError(f"path={path!r}: choose one of {', '.join(sorted(ENTRY_PATHS))}")
    return path
