"""The process that unpacks members of compressed tar archives, one at a time.

It keeps the archives of its last jobs open, so that members in the archive's order are read
forward. It ends when its socket closes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import zlib
from functools import lru_cache
from typing import Final

import msgspec

from zcfuse.tree.archive._compression import (
    DamagedStreamError,
    SeekableStream,
    compression_in,
    open_stream,
)
from zcfuse.tree.archive._format import PIECE
from zcfuse.tree.archive._limits import limit_this_process
from zcfuse.tree.archive._reader import read_at
from zcfuse.tree.archive._stream_messages import (
    DATAGRAM_BYTES,
    OPEN_ARCHIVES,
    Bad,
    Failed,
    Outcome,
    Unpack,
    Unpacked,
)

_MOST_DESCRIPTORS: Final = 4

_BLOCK_BYTES: Final = 512 * 1024
"""Decompressed bytes that are cached together."""

_CACHED_BLOCKS: Final = 256
"""128 MiB, for all archives: members that lie near each other cost one decompression."""


def main(fd: int) -> None:
    """Serve the socket `fd`."""
    # The parent decides about an interrupt from the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    streams = _Streams()
    with socket.socket(fileno=fd) as channel, streams:
        while True:
            message, fds, _, _ = socket.recv_fds(channel, DATAGRAM_BYTES, _MOST_DESCRIPTORS)
            if not message:
                return
            answer = _answer(streams, msgspec.msgpack.decode(message, type=Unpack), fds)
            channel.send(msgspec.msgpack.encode(answer))


class _Blocks:
    """The decompressed bytes of one archive, the last of them cached."""

    def __init__(self, stream: SeekableStream) -> None:
        self._block = lru_cache(_CACHED_BLOCKS // OPEN_ARCHIVES)(self._read)
        self._stream = stream

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, none only beyond the end."""
        number, within = divmod(offset, _BLOCK_BYTES)
        return self._block(number)[within : within + size]

    def _read(self, number: int) -> bytes:
        self._stream.seek(number * _BLOCK_BYTES)
        block = bytearray()
        while len(block) < _BLOCK_BYTES:
            found = self._stream.read(_BLOCK_BYTES - len(block))
            if not found:
                break
            block += found
        return bytes(block)


class _Streams:
    """The open archives by key. Owns their descriptors."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[contextlib.ExitStack, _Blocks]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for key in list(self._open):
            self.close(key)

    def close(self, key: int) -> None:
        """Close an archive, if it is open."""
        if key in self._open:
            self._open.pop(key)[0].close()

    def get(self, key: int) -> _Blocks:
        """Return an open archive."""
        if key not in self._open:
            raise DamagedStreamError("the stream did not open")
        return self._open[key][1]

    def open(self, job: Unpack, archive: int, points: int) -> None:
        """Open an archive; take over its descriptor."""
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, archive)
            compression = compression_in(job.container)
            if compression is None:
                raise DamagedStreamError(f"no compressed archive is a {job.container:.20}")
            found = read_at(points, os.fstat(points).st_size, 0)
            stream = stack.enter_context(open_stream(compression, archive, found))
            self._open[job.key] = stack.pop_all(), _Blocks(stream)


def _answer(streams: _Streams, job: Unpack, fds: list[int]) -> Outcome:
    with contextlib.ExitStack() as stack:
        file, *rest = fds
        stack.callback(os.close, file)
        pieces = None
        if job.in_pieces:
            pieces = rest.pop(0)
            stack.callback(os.close, pieces)
        try:
            limit_this_process(job.memory, job.seconds)
            streams.close(job.closes)
            if job.opens:
                archive, points = rest
                stack.callback(os.close, points)
                streams.open(job, archive, points)
            _unpack(streams.get(job.key), job, file, pieces)
        except DamagedStreamError as error:
            return Bad(f"its compressed bytes are damaged ({error!s:.200})")
        except MemoryError:
            return Bad("unpacking it takes more memory than any archive needs")
        except OSError as error:
            return Failed(error.errno or 0, f"{error.strerror or error!s:.200}")
        except Exception as error:  # a library met an unexpected value
            return Bad(f"it cannot be unpacked ({error!r:.200})")
    return Unpacked()


def _unpack(blocks: _Blocks, job: Unpack, file: int, pieces: int | None) -> None:
    """Write a member to `file`."""
    if pieces is None:
        if _copy(blocks, job.offset, job.stored, file, 0) != job.crc:
            raise DamagedStreamError("its CRC-32 is not that of the first reading")
        return
    packed = read_at(pieces, os.fstat(pieces).st_size, 0)
    for logical, offset, length in PIECE.iter_unpack(packed):
        _copy(blocks, offset, length, file, logical)


def _copy(blocks: _Blocks, offset: int, length: int, file: int, to: int) -> int:
    """Copy bytes of the stream to a place in `file`, and return their CRC-32."""
    crc = 0
    while length:
        found = blocks.read(offset, length)
        if not found:
            raise DamagedStreamError("the stream ends before the member does")
        crc = zlib.crc32(found, crc)
        view = memoryview(found)
        while view:
            done = os.pwrite(file, view, to)
            view, to = view[done:], to + done
        offset, length = offset + len(found), length - len(found)
    return crc
