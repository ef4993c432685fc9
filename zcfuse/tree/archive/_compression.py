"""Compressed streams that hold a tar archive, opened by the libraries that can seek in them.

Only the processes that index and unpack load those libraries: they may crash on hostile bytes, and
hold the GIL for long. The extra `zcfuse[compressed]` installs them.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, TypeAlias

import msgspec

GZIP_CHUNK: Final = 2 * 1024 * 1024
"""Compressed bytes between seek points. A point takes up to 32 KiB; a bomb unpacks 300 chunks."""

SKIPPABLE: Final = b"\x2a\x4d\x18"
"""The end of a magic number of zstd, whose first byte is 0x50 to 0x5f, for frames without data."""

EXTRA: Final = "pip install 'zcfuse[compressed]'"


class Compression(msgspec.Struct, frozen=True):
    """A compression format: its name, first bytes, ending, and the command that decompresses it.

    `library` is the module that can seek in it; without one the format is refused.
    """

    name: str
    magic: bytes
    ending: str
    command: str
    library: str = ""

    @property
    def container(self) -> str:
        """The name of a tar archive in this compression."""
        return f"tar.{self.ending}"


FORMATS: Final = (
    Compression("gzip", b"\x1f\x8b", "gz", "gzip -dk", "rapidgzip"),
    Compression("bzip2", b"BZh", "bz2", "bzip2 -dk", "rapidgzip"),
    Compression("xz", b"\xfd7zXZ\x00", "xz", "xz -dk", "xz"),
    Compression("zstd", b"\x28\xb5\x2f\xfd", "zst", "zstd -d", "indexed_zstd"),
    Compression("lz4", b"\x04\x22\x4d\x18", "lz4", "lz4 -dk"),
    Compression("lzip", b"LZIP", "lz", "lzip -dk"),
)

MAGIC_BYTES: Final = max(len(format.magic) for format in FORMATS)

SHORT_ENDINGS: Final = (".tgz", ".tbz2", ".tbz", ".txz", ".tzst")

ENDINGS: Final = (
    ".zip",
    ".tar",
    *(f".{format.container}" for format in FORMATS if format.library),
    *SHORT_ENDINGS,
)
"""The endings of archives' names."""


_Library: TypeAlias = Any
"""A module or an object of a library, none of which has types."""


class DamagedStreamError(Exception):
    """A compressed stream that is damaged or cut off."""


class MissingLibraryError(Exception):
    """The library of a format is not installed."""


class Stream(Protocol):
    """The decompressed bytes of a stream, at a position."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


class SeekableStream:
    """An open compressed stream. One thread at a time; close() ends the library's threads."""

    def __init__(
        self, stream: Stream, done: Callable[[], int], points: Callable[[], bytes]
    ) -> None:
        self._stream = stream
        self._position = 0
        self.done: Final = done
        """Returns the compressed bytes read so far, roughly."""
        self._points = points

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none only at the end. Raises DamagedStreamError, OSError."""
        with _damage():
            found = self._stream.read(size)
        self._position += len(found)
        return found

    def seek(self, offset: int) -> None:
        """Go to a position of the decompressed bytes. Raises DamagedStreamError, OSError."""
        if offset != self._position:
            with _damage():
                self._stream.seek(offset)
            self._position = offset

    def points(self) -> bytes:
        """Return the seek points, once everything was read; empty if the library has none."""
        try:
            with _damage():
                return self._points()
        except DamagedStreamError:
            return b""  # without them the stream is read from its beginning


def compression_of(start: bytes) -> Compression | None:
    """Return the format of a file with these first bytes, or None."""
    if start[1:4] == SKIPPABLE and 0x50 <= start[0] <= 0x5F:
        return compression_in("tar.zst")
    return next((format for format in FORMATS if start.startswith(format.magic)), None)


def compression_in(container: str) -> Compression | None:
    """Return the compression of an index's container, or None if it has none."""
    return next((format for format in FORMATS if format.container == container), None)


@contextlib.contextmanager
def open_stream(compression: Compression, fd: int, points: bytes = b"") -> Iterator[SeekableStream]:
    """Open the stream in the file `fd`, which stays the caller's, until the block ends.

    `points` are the seek points that an earlier `SeekableStream.points()` returned. Raises
    MissingLibraryError, DamagedStreamError, OSError.
    """
    try:
        library = importlib.import_module(compression.library)
    except ImportError as error:
        raise MissingLibraryError(compression.library) from error
    os.lseek(fd, 0, os.SEEK_SET)
    with contextlib.ExitStack() as stack:
        with _damage():
            stream = _OPENERS[compression.ending](library, fd, points, stack)
        yield stream


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Turn what the libraries raise about bad bytes into DamagedStreamError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise DamagedStreamError(str(error) or type(error).__name__) from error


def _gzip(library: _Library, fd: int, points: bytes, stack: contextlib.ExitStack) -> SeekableStream:
    # More threads decompress each chunk twice, and take memory for each chunk.
    file = library.RapidgzipFile(fd, parallelization=1, chunk_size=GZIP_CHUNK)
    stack.callback(file.close)
    if points:
        file.import_index(io.BytesIO(points))

    def found() -> bytes:
        index = io.BytesIO()
        file.export_index(index, library.IndexFormat.GZTOOL)
        return index.getvalue()

    return SeekableStream(file, lambda: file.tell_compressed() // 8, found)


def _bzip2(
    library: _Library, fd: int, points: bytes, stack: contextlib.ExitStack
) -> SeekableStream:
    file = library.IndexedBzip2File(fd, parallelization=1)
    stack.callback(file.close)
    if points:
        file.set_block_offsets(_offsets(points))
    return SeekableStream(file, lambda: file.tell_compressed() // 8, lambda: _packed(file))


def _zstd(library: _Library, fd: int, points: bytes, stack: contextlib.ExitStack) -> SeekableStream:
    file = library.IndexedZstdFile(fd)
    stack.callback(file.close)
    if points:
        file.set_block_offsets(_offsets(points))
    return SeekableStream(file, file.tell_compressed, lambda: _packed(file))


def _xz(library: _Library, fd: int, points: bytes, stack: contextlib.ExitStack) -> SeekableStream:
    """Open an xz stream, whose end lists its blocks: the seek points are in the archive."""
    file = stack.enter_context(os.fdopen(os.dup(fd), "rb"))
    stream = stack.enter_context(library.open(file))
    return SeekableStream(stream, file.tell, bytes)


def _packed(file: _Library) -> bytes:
    return msgspec.msgpack.encode(file.block_offsets())


def _offsets(points: bytes) -> dict[int, int]:
    return msgspec.msgpack.decode(points, type=dict[int, int])


_OPENERS: Final[
    dict[str, Callable[[_Library, int, bytes, contextlib.ExitStack], SeekableStream]]
] = {
    "gz": _gzip,
    "bz2": _bzip2,
    "xz": _xz,
    "zst": _zstd,
}
