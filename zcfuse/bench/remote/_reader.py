"""A client process: does one piece of work and prints its time and size as JSON.

``python -m zcfuse.bench.remote._reader WORK ARGUMENT...``
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

_BLOCK: Final = 1 << 20
_PAGE: Final = 4096
_PART: Final = 4 << 20


def first_byte(*paths: str) -> tuple[int, int]:
    """Open each file and read its first byte; return files and bytes."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.pread(fd, 1, 0)
        os.close(fd)
    return len(paths), len(paths)


def sequential(path: str) -> tuple[int, int]:
    """Read a file from its beginning to its end; return reads and bytes."""
    reads = size = 0
    fd = os.open(path, os.O_RDONLY)
    while data := os.read(fd, _BLOCK):
        reads, size = reads + 1, size + len(data)
    os.close(fd)
    return reads, size


def at_random(path: str, reads: str) -> tuple[int, int]:
    """Read pages at random places; return reads and bytes."""
    chance = random.Random(1)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    pages = os.fstat(fd).st_size // _PAGE
    for _ in range(int(reads)):
        os.pread(fd, _PAGE, chance.randrange(pages) * _PAGE)
    os.close(fd)
    return int(reads), int(reads) * _PAGE


def listed(path: str) -> tuple[int, int]:
    """List a directory; return the names, and 0."""
    with os.scandir(path) as entries:
        return sum(1 for _ in entries), 0


def bare(host: str, path: str, size: str, connections: str) -> tuple[int, int]:
    """Fetch an object by ranges over as many connections; return requests and bytes."""
    starts = list(range(0, int(size), _PART))
    done: list[int] = []

    def fetch() -> None:
        connection = http.client.HTTPConnection(host)
        while starts:
            start = starts.pop()
            last = min(start + _PART, int(size)) - 1
            connection.request("GET", path, headers={"Range": f"bytes={start}-{last}"})
            done.append(len(connection.getresponse().read()))

    threads = [threading.Thread(target=fetch) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done), sum(done)


WORK: Final[Mapping[str, Callable[..., tuple[int, int]]]] = {
    work.__name__: work for work in (first_byte, sequential, at_random, listed, bare)
}


if __name__ == "__main__":
    began = time.perf_counter()
    operations, size = WORK[sys.argv[1]](*sys.argv[2:])
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "operations": operations, "bytes": size}))
