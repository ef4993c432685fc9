"""The client process that uses a tree: `python -m zcfuse.bench._client`.

Loops run in C where the standard library allows it (`map` into an empty deque), so the
interpreter's time is small beside a system call's, and equal for every target. The process exits at
the end of its input.
"""

import collections
import errno
import hashlib
import itertools
import mmap
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from zcfuse.audit import cachestat
from zcfuse.bench._answers import answer_commands

_HASH_BLOCK: Final = 1 << 20
_SINK_TIMEOUT_S: Final = 10.0
_BLOCK: Final = 1 << 20
_PAGE: Final = mmap.PAGESIZE
_FILES_PER_DIRECTORY: Final = 100
Timing = dict[str, int]  # "ns", "operations", "bytes"


def _timing(begin: int, operations: int, size: int) -> Timing:
    return {"ns": time.perf_counter_ns() - begin, "operations": operations, "bytes": size}


def _exhaust(iterator: Iterable[object]) -> None:
    collections.deque(iterator, maxlen=0)


@contextmanager
def _null_sink() -> Iterator[int]:
    sink = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield sink
    finally:
        os.close(sink)


@contextmanager
def _socket_sink() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname(), timeout=_SINK_TIMEOUT_S)
        receiver, _ = server.accept()
    # Blocking again: sendfile(2) ignores Python's time-outs. The client has a bound.
    sender.settimeout(None)
    drain = threading.Thread(target=_discard, args=(receiver,), daemon=True)
    drain.start()
    with receiver:
        with sender:
            yield sender.fileno()
        drain.join(_SINK_TIMEOUT_S)


def _discard(receiver: socket.socket) -> None:
    # tcp(7): MSG_TRUNC drops the bytes instead of copying them.
    untouched = bytearray(_BLOCK)
    while receiver.recv_into(untouched, _BLOCK, socket.MSG_TRUNC):
        pass


class Client:
    """At most one open file, and the work on it or on a tree."""

    def __init__(self) -> None:
        self._fd = -1

    def open(self, path: str, direct: bool = False) -> int:
        """Open `path` for the next commands; returns its size in bytes."""
        self.close()
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close the open file, if any."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def drop(self) -> None:
        """Drop the open file's page cache (only this mount's cache, without a request)."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def cached(self) -> int:
        """Bytes of the open file in the page cache."""
        return cachestat(self._fd).cached_bytes

    def read(self, size: int, block: int) -> Timing:
        """Read `size` bytes from the start, `block` bytes per call."""
        with mmap.mmap(-1, block) as buffer:  # page-aligned, for O_DIRECT
            buffer.write(bytes(block))  # take the buffer's faults now
            begin = time.perf_counter_ns()
            done = calls = 0
            while done < size:
                count = os.preadv(self._fd, [memoryview(buffer)[: size - done]], done)
                if count == 0:
                    break
                done += count
                calls += 1
            return _timing(begin, calls, done)

    def read_blocks(self, size: int, block: int, count: int) -> Timing:
        """Read `count` consecutive blocks, starting over after `size` bytes."""
        offsets = [index * block % (size - size % block) for index in range(count)]
        return self._preads(offsets, block)

    def read_random(self, size: int, block: int, count: int, seed: int) -> Timing:
        """Read `count` blocks at random offsets that are multiples of `block`."""
        chosen = random.Random(seed)
        offsets = [chosen.randrange(size // block) * block for _ in range(count)]
        return self._preads(offsets, block)

    def _preads(self, offsets: list[int], block: int) -> Timing:
        with mmap.mmap(-1, block) as buffer:
            buffer.write(bytes(block))
            view = [memoryview(buffer)]
            begin = time.perf_counter_ns()
            _exhaust(map(os.preadv, itertools.repeat(self._fd), itertools.repeat(view), offsets))
            result = _timing(begin, len(offsets), len(offsets) * block)
            view[0].release()
            return result

    def touch(self, size: int) -> Timing:
        """Map `size` bytes and read one byte of every page."""
        begin = time.perf_counter_ns()
        with mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ) as mapping:
            with memoryview(mapping) as view, view[::_PAGE] as pages:
                touched = len(pages.tobytes())
            return _timing(begin, touched, size)

    def sendfile(self, size: int, block: int, to: str) -> Timing:
        """Send `size` bytes, `block` bytes per call, to a loopback TCP "socket" or to "null".

        Both use page references. /dev/null drops them, so only the file's side remains. The
        socket's other end discards the bytes without copying them.
        """
        with _socket_sink() if to == "socket" else _null_sink() as sink:
            begin = time.perf_counter_ns()
            done = calls = 0
            while done < size:
                count = os.sendfile(sink, self._fd, done, min(block, size - done))
                if count == 0:
                    break
                done += count
                calls += 1
            return _timing(begin, calls, done)

    def digest(self, size: int) -> str:
        """SHA-256 of the first `size` bytes, in hexadecimal."""
        state = hashlib.sha256()
        done = 0
        while done < size:
            data = os.pread(self._fd, min(_HASH_BLOCK, size - done), done)
            if not data:
                break
            state.update(data)
            done += len(data)
        return state.hexdigest()

    def open_read_close(self, root: str, names: list[str], limit: int, processes: int) -> Timing:
        """Open each file, read up to `limit` bytes of it, close it; `processes` share the names."""
        paths = [os.path.join(root, name) for name in names]
        return _shared(lambda part: _open_read_close(part, limit), paths, processes)

    def stat(self, root: str, names: list[str]) -> Timing:
        """Stat each name by its path."""
        paths = [os.path.join(root, name) for name in names]
        begin = time.perf_counter_ns()
        _exhaust(map(os.stat, paths))
        return _timing(begin, len(paths), 0)

    def walk(self, root: str, limit: int) -> Timing:
        """List directories from `root` down and stat up to `limit` entries."""
        begin = time.perf_counter_ns()
        seen = 0
        waiting = [root]
        while waiting and seen < limit:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    os.stat(entry.path, follow_symlinks=False)
                    seen += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        return _timing(begin, seen, 0)

    def missing(self, root: str, names: list[str]) -> Timing:
        """Look up missing names."""
        paths = [os.path.join(root, name) for name in names]
        begin = time.perf_counter_ns()
        found = [path for path in paths if _exists(path)]
        result = _timing(begin, len(paths), 0)
        if found:
            raise OSError(errno.EEXIST, "a name that was to be missing exists", found[0])
        return result

    def write(self, root: str, size: int, block: int, count: int, seed: int | None) -> Timing:
        """Write `count` blocks into a file of `size` bytes: in order, or at random by `seed`."""
        fd = os.open(os.path.join(_own(root), "written"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            for done in range(os.fstat(fd).st_size, size, _BLOCK):
                os.pwrite(fd, bytes(_BLOCK), done)
            chosen = random.Random(seed)
            offsets = (
                [index * block for index in range(count)]
                if seed is None
                else [chosen.randrange(size // block) * block for _ in range(count)]
            )
            data = chosen.randbytes(block)
            begin = time.perf_counter_ns()
            _exhaust(map(os.pwrite, itertools.repeat(fd), itertools.repeat(data), offsets))
            return _timing(begin, count, count * block)
        finally:
            os.close(fd)

    def create(self, root: str, count: int, size: int) -> Timing:
        """Create `count` files, write `size` bytes into each, and close it."""
        paths = _new_paths(root, count)
        for directory in dict.fromkeys(map(os.path.dirname, paths)):
            os.mkdir(directory)
        data = bytes(size)
        begin = time.perf_counter_ns()
        for path in paths:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, data)
            os.close(fd)
        return _timing(begin, count, 0)

    def delete(self, root: str, count: int) -> Timing:
        """Unlink the files that `create` made."""
        paths = _new_paths(root, count)
        begin = time.perf_counter_ns()
        _exhaust(map(os.unlink, paths))
        result = _timing(begin, count, 0)
        _exhaust(map(os.rmdir, dict.fromkeys(map(os.path.dirname, paths))))
        return result

    def unpack(self, root: str, archive: str, members: int) -> Timing:
        """Unpack a tar archive with tar(1)."""
        into = os.path.join(_own(root), "unpacked")
        os.mkdir(into)
        return _command(members, "tar", "-xf", archive, "-C", into)

    def remove(self, root: str, members: int) -> Timing:
        """Remove what `unpack` made with rm(1)."""
        return _command(members, "rm", "-r", os.path.join(_own(root), "unpacked"))


def _own(root: str) -> str:
    """The directory of this client: targets may share what they change."""
    path = os.path.join(root, str(os.getpid()))
    with suppress(FileExistsError):
        os.mkdir(path)
    return path


def _new_paths(root: str, count: int) -> list[str]:
    own = _own(root)
    return [f"{own}/{index // _FILES_PER_DIRECTORY}/{index}" for index in range(count)]


def _command(operations: int, *command: str) -> Timing:
    begin = time.perf_counter_ns()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EIO, done.stderr.strip(), command[0])
    return _timing(begin, operations, 0)


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _open_read_close(paths: list[str], limit: int) -> int:
    done = 0
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        done += len(os.read(fd, limit))
        os.close(fd)
    return done


def _shared(work: Callable[[list[str]], int], items: list[str], processes: int) -> Timing:
    begin = time.perf_counter_ns()
    if processes == 1:
        return _timing(begin, len(items), work(items))
    children = []
    for index in range(processes):
        child = os.fork()
        if child == 0:
            os._exit(_status_of(work, items[index::processes]))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(statuses):
        raise OSError(max(statuses), os.strerror(max(statuses)))
    return _timing(begin, len(items), 0)


def _status_of(work: Callable[[list[str]], int], items: list[str]) -> int:
    """Return the errno of `work` for a child's exit status; 0 on success."""
    try:
        work(items)
    except OSError as error:
        return (error.errno or errno.EIO) & 0xFF
    return 0


def main() -> None:
    """Serve commands until the input ends."""
    answer_commands(Client())


if __name__ == "__main__":
    main()
