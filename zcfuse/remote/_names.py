"""The facts of the names of one directory, packed, because a listing may have a million names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from zcfuse.remote._messages import Info


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


class NameTable:
    """Facts by name, in the order of their coming. Belongs to the thread of its listing."""

    __slots__ = ("_above", "_records")

    def __init__(self, infos: Iterable[Info] = ()) -> None:
        self._records: dict[bytes, bytes] = {}
        self._above: str | None = None
        for info in infos:
            self.put(info)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._records)

    def __contains__(self, name: bytes) -> bool:
        return name in self._records

    def get(self, name: bytes) -> Info | None:
        """Return the facts of a name, None if it is not there."""
        packed = self._records.get(name)
        if packed is None:
            return None
        kept = msgspec.msgpack.decode(packed, type=_Record)
        path = f"{self._above}{_text(name)}" if kept.path is None else kept.path
        version = f"{kept.size} {kept.version}" if kept.names_size else kept.version
        return Info(name, path, kept.is_directory, kept.size, kept.mtime_ns, version)

    def put(self, info: Info) -> None:
        """Keep facts, in place of earlier ones of the same name."""
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
        self._records[info.name] = msgspec.msgpack.encode(record)

    def remove(self, name: bytes) -> None:
        """Forget a name; it may be missing."""
        self._records.pop(name, None)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
