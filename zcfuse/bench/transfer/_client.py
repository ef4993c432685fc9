"""The client that moves the bytes: `python -m zcfuse.bench.transfer._client`.

The native module does the work. The counts cover this process, which does nothing else meanwhile.
It exits at the end of its input.
"""

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Final

from zcfuse.audit import cachestat
from zcfuse.bench import answer_commands
from zcfuse.bench.transfer._receiver import DIGEST, DISCARD
from zcfuse.bench.transfer._transfer_native import latency, transfer

_BLOCK: Final = 1 << 20
_CONNECT_TIMEOUT_S: Final = 10.0
_PAUSES_S: Final = (0.001, 0.005, 0.02)
Told = Mapping[str, int | str]  # addresses of the sinks


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _connected(sink: str, told: Told, first: bytes) -> socket.socket:
    if sink == "tcp":
        address = ("127.0.0.1", int(told["tcp"]))
        connection = socket.create_connection(address, timeout=_CONNECT_TIMEOUT_S)
    else:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(told["unix"]))
    # The native module ignores Python's time-outs; the parent has one for the whole command.
    connection.settimeout(None)
    connection.sendall(first)
    return connection


def _digest_of(fd: int, size: int) -> str:
    state = hashlib.sha256()
    done = 0
    while done < size and (data := os.pread(fd, min(_BLOCK, size - done), done)):
        state.update(data)
        done += len(data)
    return state.hexdigest()


class Client:
    """The commands; each opens and closes its file."""

    def close(self) -> None:
        """Answer, to show that the process lives; nothing stays open between commands."""

    def drop(self, path: str) -> int:
        """Drop the page cache of a file; returns the bytes that stay (-1: unknown)."""
        with _opened(path) as fd:
            for pause in _PAUSES_S:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                if self._cached(fd) <= 0:
                    break
                # A socket may release the last pages a moment after its receiver has them.
                time.sleep(pause)
            return self._cached(fd)

    def fill(self, path: str, size: int) -> int:
        """Read `size` bytes into the page cache; returns how many are in it (-1: unknown)."""
        with _opened(path) as fd:
            if self._cached(fd, size) < size:
                buffer = bytearray(_BLOCK)
                for offset in range(0, size, _BLOCK):
                    os.preadv(fd, [memoryview(buffer)[: size - offset]], offset)
            return self._cached(fd, size)

    def _cached(self, fd: int, size: int = 0) -> int:
        try:
            return cachestat(fd, length=size).cached_bytes
        except OSError:
            return -1

    def digest(self, path: str, size: int) -> str:
        """SHA-256 of the first `size` bytes, in hexadecimal."""
        with _opened(path) as fd:
            return _digest_of(fd, size)

    def transfer(
        self, method: str, path: str, sink: str, told: Told, size: int, block: int, digest: bool
    ) -> dict[str, int | str]:
        """Move bytes and count; with `digest` the receiver returns its `sha256`."""
        if sink == "null":
            with open("/dev/null", "wb", buffering=0) as null:
                return transfer(method, path, null.fileno(), sink, size, block)
        if sink == "file":
            return self._into_file(method, path, str(told["directory"]), size, block, digest)
        with _connected(sink, told, DIGEST if digest else DISCARD) as connection:
            result = transfer(method, path, connection.fileno(), sink, size, block)
            if digest:
                result["sha256"] = connection.recv(hashlib.sha256().digest_size).hex()
            return result

    def _into_file(
        self, method: str, path: str, directory: str, size: int, block: int, digest: bool
    ) -> dict[str, int | str]:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            result = transfer(method, path, fd, "file", size, block)
            if digest:
                result["sha256"] = _digest_of(fd, size)
            return result
        finally:
            os.close(fd)

    def latency(
        self, path: str, pages: int, mapped: bool, prefaulted: bool, seed: int
    ) -> dict[str, int]:
        """Time single reads of a page."""
        return latency(path, pages, mapped, prefaulted, seed)


def main() -> None:
    """Serve commands until the input ends."""
    answer_commands(Client())


if __name__ == "__main__":
    main()
