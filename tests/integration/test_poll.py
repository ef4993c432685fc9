"""poll(2) on a file of the mount, which io_uring also does before each read.

docs/semantics.md, "Operations".
"""

from __future__ import annotations

import os

from tests.integration.conftest import write
from tests.integration.counts import counts
from tests.support import Mounter, requires

pytestmark = requires("mounting")

POLLED = """
import os, select, sys
for path in sys.argv[1:]:
    for _ in range(3):
        poll = select.poll()
        poll.register(os.open(path, os.O_RDONLY), select.POLLIN | select.POLLOUT)
        print([events for _, events in poll.poll(0)])
"""


def test_a_file_is_ready_as_natively_and_the_kernel_asks_for_it_once(
    mounted: Mounter, source: str
) -> None:
    write(source, "file", b"x")
    daemon = mounted()
    backing = os.path.join(source, "file")
    lines = daemon.python(POLLED, backing, daemon.path("file")).stdout.split(b"\n")[:6]
    assert lines[:3] == lines[3:]
    assert counts(daemon).request("POLL") <= 1
