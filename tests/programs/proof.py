"""The proof that a fast path served a program, by three independent counts.

They are the daemon's ledger (requests and bytes by serving path, opens by kind), the kernel's count
of requests to the mount (tracepoints, if available), and the kernel's count of bytes that the
daemon read and wrote (``/proc/PID/io``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tests.integration.counts import counts
from tests.support import Daemon, missing
from zcfuse.audit import (
    IoCounts,
    Ledger,
    RequestCounter,
    ledger_of,
    read_usage,
)

# The bytes that the daemon may read and write per byte delivered: messages (names, attributes,
# listings), of which many small files need more than one large file.
COPIED_PER_BYTE: Final = 0.05
# A query for the status of all mounts (``zcfuse list``) makes the daemon read 12 KiB of /proc, and
# may happen while a program runs.
COPIED_FOR_A_STATUS: Final = 64 << 10
# For a passthrough file the kernel sends READ only for readahead on advice.
_ADVICE: Final = "passthrough_read"


@dataclass(slots=True)
class Proof:
    """The daemon's cost of one block of a test; the counts exist after the block.

    `delivered` is a lower bound of the bytes that the mount gave the program. The test sets it,
    first or in the block, because only the test knows it. `advised` means that the program asks for
    readahead (posix_fadvise(2), readahead(2)), for which the kernel sends READ even under
    passthrough.
    """

    daemon: Daemon
    path: str
    delivered: int
    advised: bool = False
    transport: str = field(init=False)
    # The modes of all opens since the mount began: a file that is open, or opened again soon, keeps
    # the mode of its first open.
    modes: list[str] = field(init=False)
    ledger: Ledger = field(init=False)
    io: IoCounts = field(init=False)
    kernel_requests: dict[str, int] | None = field(init=False, default=None)

    @property
    def copied(self) -> int:
        """The kernel's count of bytes in the daemon's read and write calls."""
        return self.io.rchar + self.io.wchar

    @property
    def opens(self) -> int:
        """Opens of the block's programs."""
        return self.ledger.requests.get("OPEN", 0)

    @property
    def served(self) -> dict[str, int]:
        """Bytes in replies to READ, by the serving path."""
        return {name: path.bytes for name, path in self.ledger.paths.items() if path.bytes}

    def numbers(self) -> dict[str, Any]:
        """The proof as plain values, for a record."""
        requests, reads = self.ledger.total_requests, self.ledger.reads
        return {
            "path": self.path,
            "transport": self.transport,
            "delivered": self.delivered,
            "requests": requests,
            "reads": reads,
            "asked_of_python": sum(self.ledger.upcalls.values()),
            "kernel_requests": self.kernel_requests,
            "opens": self.opens,
            "modes": self.modes,
            "served": self.served,
            "daemon_read_and_wrote": self.copied,
        }

    def require_fast(self) -> None:
        """Require that only the requested path served the program."""
        assert self.delivered > 0, "the test does not say how much the program was given"
        found = self.numbers()
        assert self.copied <= self.delivered * COPIED_PER_BYTE + COPIED_FOR_A_STATUS, found
        if self.path == "passthrough":
            self._require_passthrough(found)
        else:
            self._require_path(found)

    def _require_passthrough(self, found: dict[str, Any]) -> None:
        assert self.modes == ["passthrough"], found
        reasons = self.ledger.fallbacks.items()
        advised = sum(count for reason, count in reasons if reason.startswith(_ADVICE))
        assert self.ledger.reads == (advised if self.advised else 0), found
        if self.kernel_requests is not None and not self.advised:
            assert self.kernel_requests["READ"] == 0, found

    def _require_path(self, found: dict[str, Any]) -> None:
        assert set(self.served) == {self.path}, found
        assert self.ledger.reads > 0, found


@contextlib.contextmanager
def proof_of(
    daemon: Daemon, path: str, *, delivered: int = 0, advised: bool = False
) -> Iterator[Proof]:
    """Count the block's cost to the daemon, and require at its end that `path` served it."""
    proof = Proof(daemon, path, delivered, advised)
    before = counts(daemon)
    proof.transport = str(before.datapath["transport"]["kind"])
    usage = read_usage(daemon.pid)
    with contextlib.ExitStack() as ends:
        counter = _request_counter(daemon)
        if counter is not None:
            ends.enter_context(counter)
        yield proof
        if counter is not None:
            found = counter.count()
            proof.kernel_requests = {"all": found[""], "READ": found["READ"]}
    proof.io = read_usage(daemon.pid).since(usage).io
    after = counts(daemon)
    proof.modes = sorted(name for name, count in after.opens.items() if count)
    proof.ledger = ledger_of(after.document).since(ledger_of(before.document))
    proof.require_fast()


def _request_counter(daemon: Daemon) -> RequestCounter | None:
    """The kernel's count of the mount's requests; None if unavailable."""
    mount = daemon.mount
    if missing("tracepoints") or mount is None:
        return None
    return RequestCounter(mount.connection, {"READ": 15})
