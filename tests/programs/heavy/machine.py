"""What these tests ask of the kernel besides the proof: its calls, and whose pages are cached."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from tests.programs.served import Served
from tests.support import missing
from zcfuse.audit import CountUnavailableError, TracepointCounter, tracepoint_id

# Prints how many bytes of a file the page cache holds for the filesystem that it is opened on.
_CACHED = """
import os, sys
from zcfuse.audit import cachestat
fd = os.open(sys.argv[1], os.O_RDONLY)
print(cachestat(fd).cached_bytes)
"""


@contextlib.contextmanager
def calls_of_children(call: str) -> Iterator[Callable[[], int | None]]:
    """Count the calls of `call` that move bytes, by every process that is started in the block.

    Gives what tells how many there were; None where this kernel, or this user's rights, have no
    such count.
    """
    # An event of this thread is inherited by what it forks (perf_event_open(2)), so by the
    # programs and their threads, but not by the daemon, which was there before.
    try:
        event = tracepoint_id(f"syscalls:sys_exit_{call}")
        counter = TracepointCounter(event, [(os.getpid(), -1)], "ret > 0")
    except CountUnavailableError:
        yield lambda: None
        return
    with counter:
        yield counter.count


def require_no_pages_twice(served: Served, name: str) -> None:
    """Require that under passthrough the mount has no page of a file that was just mapped.

    The program's pages were then the backing file's own. By any other path the mount has a copy.
    """
    if missing("kernel 6.5"):  # cachestat(2)
        return
    cached = int(served.daemon.python(_CACHED, served.daemon.path(name)).stdout)
    assert (cached == 0) == (served.path == "passthrough"), cached
