"""Compares the daemon's count of copied bytes with the kernel's.

Every tolerance states its reason. A tolerance is never a share of the bytes, which could hide a
copy. It is a fixed allowance for the daemon's other reads and writes (log lines, `/proc`, the
status socket's peer), plus one per request for headers.
"""

from typing import Final

import msgspec

from zcfuse.audit._ledger import Ledger
from zcfuse.audit._process import IoCounts

# A READ has 80 bytes and its reply a header of 16. An upcall's headers cross two channels twice. A
# LOOKUP or READDIRPLUS carries names and attributes of a few hundred bytes.
_BYTES_PER_REQUEST: Final = 512
_FIXED_BYTES: Final = 1 << 20


class Count(msgspec.Struct, frozen=True):
    """One quantity counted twice, with its `tolerance` and the `reason` for that."""

    name: str
    ledger: int
    audit: int
    tolerance: int
    reason: str

    @property
    def agrees(self) -> bool:
        """Whether the two counts agree within the tolerance."""
        return abs(self.ledger - self.audit) <= self.tolerance


class Comparison(msgspec.Struct, frozen=True):
    """All quantities that both sides count."""

    counts: tuple[Count, ...]

    @property
    def agrees(self) -> bool:
        """Whether every quantity agrees."""
        return all(count.agrees for count in self.counts)

    def differences(self) -> list[str]:
        """One line per quantity that disagrees."""
        return [
            f"{count.name}: ledger {count.ledger}, kernel {count.audit}, "
            f"allowed {count.tolerance} ({count.reason})"
            for count in self.counts
            if not count.agrees
        ]


def compare(ledger: Ledger, io: IoCounts, requests: dict[str, int] | None = None) -> Comparison:
    """Compare a ledger difference with the kernel's counts of the same interval.

    `requests` are the tracepoint's counts (see `RequestCounter.count`), None if unavailable. The
    mount must be idle at both ends; otherwise only one side counts a request in flight.
    """
    allowance = _FIXED_BYTES + _BYTES_PER_REQUEST * ledger.total_requests
    headers = (
        f"{_FIXED_BYTES} bytes for the daemon's reads and writes other than replies, "
        f"{_BYTES_PER_REQUEST} per request for headers, names and attributes"
    )
    counts = [
        Count(
            "bytes copied in",
            ledger.copied_in - ledger.received,
            io.rchar,
            allowance,
            headers + "; only the ledger counts bytes from recv, which are subtracted",
        ),
        Count("bytes copied out", ledger.copied_out, io.wchar, allowance, headers),
    ]
    if requests is not None and "READ" in requests:
        reason = "the tracepoint and the ledger see every READ once"
        counts.append(Count("READ requests", ledger.reads, requests["READ"], 0, reason))
    return Comparison(tuple(counts))
