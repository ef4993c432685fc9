"""What the daemon says it copied held against what the kernel saw.

Every tolerance has its reason beside it, and none is a share of the bytes that would hide a copy:
they are a fixed allowance for what a daemon reads and writes besides (log lines, `/proc`, the
status socket's peer), and one for each request's headers.
"""

from typing import Final

import msgspec

from zcfuse.audit._ledger import Ledger
from zcfuse.audit._process import IoCounts

# A READ comes in 80 bytes and its reply has a header of 16; an upcall's headers cross two channels
# twice, and a LOOKUP or READDIRPLUS carries names and attributes of a few hundred bytes.
_BYTES_PER_REQUEST: Final = 512
_FIXED_BYTES: Final = 1 << 20


class Count(msgspec.Struct, frozen=True):
    """One quantity counted twice, with the `tolerance` it has and the `reason` for that."""

    name: str
    ledger: int
    audit: int
    tolerance: int
    reason: str

    @property
    def agrees(self) -> bool:
        """Whether the two counts are within the tolerance."""
        return abs(self.ledger - self.audit) <= self.tolerance


class Comparison(msgspec.Struct, frozen=True):
    """All quantities that both counts have."""

    counts: tuple[Count, ...]

    @property
    def agrees(self) -> bool:
        """Whether every quantity agrees."""
        return all(count.agrees for count in self.counts)

    def differences(self) -> list[str]:
        """A line for each quantity that does not agree."""
        return [
            f"{count.name}: ledger {count.ledger}, kernel {count.audit}, "
            f"allowed {count.tolerance} ({count.reason})"
            for count in self.counts
            if not count.agrees
        ]


def compare(ledger: Ledger, io: IoCounts, requests: dict[str, int] | None = None) -> Comparison:
    """Hold a ledger difference against the kernel's counts of the same stretch of time.

    `requests` are the tracepoint's counts (see `RequestCounter.count`), None where not to be had.
    The mount must be at rest at both ends, or requests under way are on one side only.
    """
    allowance = _FIXED_BYTES + _BYTES_PER_REQUEST * ledger.total_requests
    headers = (
        f"{_FIXED_BYTES} bytes for what a daemon reads and writes besides replies, "
        f"{_BYTES_PER_REQUEST} a request for headers, names and attributes"
    )
    counts = [
        Count(
            "bytes copied in",
            ledger.copied_in - ledger.received,
            io.rchar,
            allowance,
            headers + "; what recv brought is in the ledger only and taken off",
        ),
        Count("bytes copied out", ledger.copied_out, io.wchar, allowance, headers),
    ]
    if requests is not None and "READ" in requests:
        reason = "the tracepoint and the ledger see every READ once"
        counts.append(Count("READ requests", ledger.reads, requests["READ"], 0, reason))
    return Comparison(tuple(counts))
