"""The messages between a mount and its worker processes, each behind its length in 4 bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any, Final, TypeVar

import msgspec

_LENGTH: Final = struct.Struct("<I")
_T = TypeVar("_T")

DEMANDED: Final = 0
AHEAD: Final = 1
CHECKING: Final = 2


class Setup(msgspec.Struct, frozen=True):
    """The first message. `options` may hold credentials, so never log or print it.

    `connections` is the most requests to the server at a time, of one process.
    """

    url: str
    identity: str
    options: dict[str, Any]
    cache_directory: str
    cache_size: str
    cache_floor: str
    connections: int


class Info(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The facts that a server gives of a name. `size` is None if it did not say."""

    name: bytes
    path: str
    is_directory: bool
    size: int | None
    mtime_ns: int
    version: str


class ListDirectory(msgspec.Struct, frozen=True, tag=True):
    """Fetch the names of a directory; with `sizes` also the sizes that a listing lacks."""

    number: int
    path: str
    sizes: bool
    deadline_s: float
    priority: int = DEMANDED


class Look(msgspec.Struct, frozen=True, tag=True):
    """Fetch what the server says of `name` in the directory at `path`."""

    number: int
    path: str
    name: bytes
    deadline_s: float
    priority: int = DEMANDED


class Ensure(msgspec.Struct, frozen=True, tag=True):
    """Verify a range of a cache file; with `fetch`, also fetch the rest of the range."""

    number: int
    key: str
    info: Info
    start: int
    length: int
    fetch: bool
    deadline_s: float
    priority: int = DEMANDED


class Evict(msgspec.Struct, frozen=True, tag=True):
    """Remove the entries used least recently, until the cache is within its limits."""

    number: int
    priority: int = CHECKING


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Do nothing more for the request `number`. Its answer is a failure, unless it is at its end.

    There is no other answer.
    """

    number: int


Request = ListDirectory | Look | Ensure | Evict | Cancel


class Listed(msgspec.Struct, frozen=True, tag=True):
    """`left_out` counts keys that are no names. `whole`: a name that is not listed is missing."""

    number: int
    entries: list[Info]
    left_out: int
    whole: bool


class Page(msgspec.Struct, frozen=True, tag=True):
    """Names of a listing that goes on; `Listed` has those after the last page."""

    number: int
    entries: list[Info]
    left_out: int


class Looked(msgspec.Struct, frozen=True, tag=True):
    """None: the name is missing."""

    number: int
    info: Info | None


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """The pieces [first, stop) can be read; they are not durable before `Ensured` has them."""

    number: int
    first: int
    stop: int


class Ensured(msgspec.Struct, frozen=True, tag=True):
    """Ranges of verified bytes (offset, length), and the requests to the server.

    `times_ns` says how long each of these took, and `by_driver` why the driver read ranges that
    a plain connection should have read, with their number.
    """

    number: int
    good: list[tuple[int, int]]
    fetched_bytes: int = 0
    requests: int = 0
    retries: int = 0
    damaged: int = 0
    times_ns: list[int] = []
    by_driver: dict[str, int] = {}


class Evicted(msgspec.Struct, frozen=True, tag=True):
    """The bytes that the eviction freed."""

    number: int
    freed_bytes: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """`unreachable`: the server did not answer, so an older answer may stand in."""

    number: int
    errno: int
    text: str
    unreachable: bool = False
    requests: int = 0


Part = Page | Arrived
Reply = Part | Listed | Looked | Ensured | Evicted | Failed


def encode(message: msgspec.Struct) -> bytes:
    """Return a message with its length."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


def receive(channel: socket.socket, kind: type[_T]) -> _T | None:
    """Return the next message; None at the end of the channel."""
    head = _exactly(channel, _LENGTH.size)
    data = None if head is None else _exactly(channel, _LENGTH.unpack(head)[0])
    return None if data is None else msgspec.msgpack.decode(data, type=kind)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        try:
            part = channel.recv(min(size - len(found), 1 << 20))
        except OSError:
            return None
        if not part:
            return None
        found += part
    return bytes(found)
