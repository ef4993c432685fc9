"""Open files of a virtual tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from zcfuse.tree._sources import Maker, Run, Runs, Sources
from zcfuse.tree._types import (
    HOLE,
    WHOLE_FILE,
    Answer,
    Attributes,
    BackingFile,
    Extent,
    UpcallFile,
    Who,
)

_BLOCK: Final = 512


class BlobFile(BackingFile):
    """An open file made of runs. It owns the sources; `describe` gives its attributes.

    The open fixes the runs' places until the close.
    """

    __slots__ = ("_describe", "_path", "_runs", "_sources")

    def __init__(
        self, sources: Sources, runs: Runs, path: str, describe: Callable[[Runs], Attributes]
    ) -> None:
        self._sources = sources
        self._runs = runs
        self._path = path
        self._describe = describe

    @property
    def extents(self) -> Sequence[Extent]:
        """The runs; an open-ended run extends to the end of its file at the time of a read."""
        return [_extent(run) for run in self._runs.runs]

    @property
    def path(self) -> str:
        """The path that the entry asks for."""
        return self._path

    def pread(self, size: int, offset: int) -> bytes:
        """Return up to `size` bytes from `offset`."""
        found = bytearray()
        for run, start, wanted in _within(self._runs.runs, size, offset):
            part = _pread(run, wanted, start)
            found += part
            if len(part) < wanted:
                break  # a file that became shorter ends the whole
        return bytes(found)

    def attributes(self) -> Attributes:
        """Return the attributes, with the present size."""
        self._sources.refresh()
        return self._describe(Runs(tuple(_still_there(self._runs.runs))))

    def version(self) -> tuple[int, int]:
        """Return the version of the files behind it, whatever time the entry shows."""
        self._sources.refresh()
        found = [(one.attributes.size, one.attributes.mtime_ns) for one in self._sources.statuses]
        return hash(tuple(found)), max((mtime for _, mtime in found), default=0)

    def close(self) -> None:
        """Close the sources."""
        self._sources.close()


class MadeFile(UpcallFile):
    """An open file with bytes that a program makes. It owns `file`, which has the others."""

    __slots__ = ("_file", "_runs")

    def __init__(self, file: BlobFile, runs: Runs) -> None:
        self._file = file
        self._runs = runs

    @property
    def direct(self) -> bool:
        """Each read asks again."""
        return True

    def read_for(self, size: int, offset: int, who: Who) -> Answer[bytes]:
        """Return the range, or an awaitable of it where a program makes some of it.

        The bytes of files are read at once: only this call may wait for a far filesystem.
        """
        parts: list[bytes | tuple[Maker, int, int]] = []
        for run, start, wanted in _within(self._runs.runs, size, offset):
            if run.maker is not None:
                parts.append((run.maker, run.offset + start, wanted))
                continue
            part = _pread(run, wanted, start)
            parts.append(part)
            if len(part) < wanted:
                break
        return _made(parts, who) if parts else b""

    def attributes(self) -> Attributes:
        """Return the attributes, with the present size."""
        return self._file.attributes()

    def version(self) -> tuple[int, int]:
        """Return the version of the files behind it."""
        return self._file.version()

    def close(self) -> None:
        """Close the files."""
        self._file.close()


def regular(mode: int) -> int:
    """Return the mode of a regular file with these permission bits."""
    return stat.S_IFREG | mode & 0o7777


def blocks_of(runs: Runs) -> int:
    """Return the number of 512-byte blocks with data; for a whole file, the file's own blocks."""
    if len(runs.runs) == 1 and runs.runs[0].open_ended and runs.runs[0].offset == 0:
        source = runs.runs[0].source
        if source is not None and source.status is not None:
            return source.status.attributes.blocks
    return sum(-(-run.length // _BLOCK) for run in runs.runs if run.source is not None)


def _extent(run: Run) -> Extent:
    if run.source is None:
        return Extent(HOLE, 0, run.length)
    return Extent(run.source.fd, run.offset, WHOLE_FILE if run.open_ended else run.length)


def _within(runs: Sequence[Run], size: int, offset: int) -> Iterator[tuple[Run, int, int]]:
    """Yield the runs in a range as (run, offset within the run, bytes), up to `size` in all."""
    for run in runs:
        if size <= 0:
            return
        length = WHOLE_FILE if run.open_ended else run.length
        if offset >= length:
            offset -= length
            continue
        wanted = min(size, length - offset)
        yield run, offset, wanted
        size -= wanted
        offset = 0


async def _made(parts: Sequence[bytes | tuple[Maker, int, int]], who: Who) -> bytes:
    found = bytearray()
    for part in parts:
        found += part if isinstance(part, bytes) else await _made_by(*part, who)
    return bytes(found)


async def _made_by(maker: Maker, offset: int, size: int, who: Who) -> bytes:
    data = await maker.made_for(who, offset, size)
    # The kernel would take short data for the end of the file, and lose the rest of long data.
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) != size:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"read({offset}, {size}) of a Computed file returned {found}")
    return bytes(data)


def _pread(run: Run, size: int, offset: int) -> bytes:
    if run.source is None:
        return bytes(size)
    found = b""
    while len(found) < size:
        part = os.pread(run.source.fd, size - len(found), run.offset + offset + len(found))
        if not part:
            break
        found += part
    return found


def _still_there(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the runs as far as their files still have the bytes."""
    found: list[Run] = []
    for run in runs:
        if run.source is None:
            found.append(run)
            continue
        there = max(run.source.size - run.offset, 0)
        length = there if run.open_ended else min(run.length, there)
        found.append(Run(run.source, run.offset, length, run.open_ended))
        if length < run.length and not run.open_ended:
            break
    return found
