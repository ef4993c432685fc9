"""Further questions to the kernel: system calls, and cached pages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from tests.programs.frozen import PATH
from tests.programs.served import Served
from tests.support import missing
from zcfuse.audit import CountUnavailableError, TracepointCounter, tracepoint_id

# Prints the bytes of a file in the page cache of the filesystem where it is opened.
_CACHED = """
import os, sys
from zcfuse.audit import cachestat
fd = os.open(sys.argv[1], os.O_RDONLY)
print(cachestat(fd).cached_bytes)
"""


@contextlib.contextmanager
def calls_of_children(call: str) -> Iterator[Callable[[], int | None]]:
    """Count the calls of `call` that move bytes, by every process started in the block.

    Yields a function that returns the count; None if the kernel or the user's rights have no such
    count.
    """
    # Children inherit an event of this thread (perf_event_open(2)): the programs and their threads,
    # but not the daemon, which started earlier.
    try:
        event = tracepoint_id(f"syscalls:sys_exit_{call}")
        counter = TracepointCounter(event, [(os.getpid(), -1)], "ret > 0")
    except CountUnavailableError:
        yield lambda: None
        return
    with counter:
        yield counter.count


def require_no_pages_twice(served: Served, name: str) -> None:
    """Require that under passthrough, or frozen, the mount caches no page of a file just mapped.

    The program's pages were then the backing file's. By any other path the mount has a copy.
    """
    if missing("kernel 6.5"):  # cachestat(2)
        return
    cached = int(served.daemon.python(_CACHED, served.daemon.path(name)).stdout)
    assert (cached == 0) == (served.path in ("passthrough", PATH)), cached
