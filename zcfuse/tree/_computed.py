"""Files whose bytes an async function makes when they are read."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import MethodType
from typing import TypeAlias, Unpack

from zcfuse.tree._content import Blob, refuse_path
from zcfuse.tree._entry import Given, attributes_key, whole_number
from zcfuse.tree._sources import Run, Runs, Sources
from zcfuse.tree._types import Who

Read: TypeAlias = Callable[..., Awaitable[bytes]]
"""``read(offset, size)``, or ``read(offset, size, who)`` for bytes that depend on the client."""


class Computed(Blob):
    """A file of `size` bytes that ``await read(offset, size)`` makes, each time they are read.

    A client's read is always an upcall, past the kernel's page cache, so clients cannot map such a
    file shared. A `Concat` or `Slice` with such a part is read like that as a whole. The mount
    calls `read` in a trio task, several at once, with a range within the file. `read` must return
    exactly that many bytes. For any other result, and for any exception but OSError, the client
    gets EIO and the log a line. After the mount's `answer_timeout` the call is cancelled, and the
    client gets ETIMEDOUT.

    Parameters:
        size: in bytes.
        read: async function of (offset, size), both in bytes, that returns bytes. If it has a
            parameter called ``who``, it gets the `Who` that opened the file by that name.
        attributes: mode (0o444), uid, gid and mtime (when the tree was made), as `Entry` has them.

    Raises:
        TypeError: `size` is no int or `read` is no function.
        ValueError: a `path` is given, for the bytes travel by upcall.
        ValueError: `size` is negative or beyond 2**63 - 1.
    """

    __slots__ = ("_asks_who", "read", "size")

    is_made = True

    def __init__(self, size: int, read: Read, **attributes: Unpack[Given]) -> None:
        super().__init__(**attributes)
        refuse_path(self)
        if not callable(read):
            raise TypeError(f"read must be an async function, not {read!r}")
        self.size = whole_number("size", size)
        self.read = read
        self._asks_who = _has_parameter(read, "who")

    def key(self) -> object:
        """Return the size, the function and the attributes."""
        return "computed", self.size, _which(self.read), attributes_key(self)

    def runs(self, sources: Sources) -> Runs:
        """Return one run of bytes that it makes."""
        return Runs((Run(None, 0, self.size, maker=self),) if self.size else ())

    def made_for(self, who: Who, offset: int, size: int) -> Awaitable[bytes]:
        """Return what `read` answers to a process. For trees."""
        if self._asks_who:
            return self.read(offset, size, who=who)
        return self.read(offset, size)

    def describe(self) -> str:
        """Return which function makes its bytes."""
        name = getattr(self.read, "__qualname__", type(self.read).__qualname__)
        return f"Computed: {self.size:,} bytes that the function {name} makes at each read"


def _has_parameter(function: Read, name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # one of a compiled module may have no signature
        return False


def _which(function: Read) -> object:
    """Return a value that identifies a function; a bound method is a new object on each access."""
    if isinstance(function, MethodType):
        return id(function.__self__), id(function.__func__)
    return id(function)
