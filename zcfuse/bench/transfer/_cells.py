"""One cell of the transfer tables: counts of each round, and figures computed from them.

A sample's `delivered` bytes are those that the sink accepted; a cell's figures are medians over the
rounds, with minimum and maximum.
"""

import errno
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from zcfuse.audit import ProcessUsage

_GB: Final = 1e9
_NS: Final = 1e9


class Side(msgspec.Struct, frozen=True):
    """The cost of a transfer to one process, the client or the daemon. Sizes are bytes.

    The client's copies are sums of its system calls' return values. The daemon's come from
    `/proc/PID/io`, because its threads read and write but do not call sendfile. `copied_late` was
    sent by reference, and the kernel reported a later copy. `copied_inside` moved from page to page
    in the kernel. `rchar` and `wchar` are raw values of `/proc/PID/io`.
    """

    cpu_ns: int
    copied_in: int
    copied_out: int
    voluntary_switches: int
    involuntary_switches: int
    minor_faults: int
    major_faults: int
    rchar: int
    wchar: int
    resident_before: int
    resident_peak: int
    copied_late: int = 0
    copied_inside: int = 0

    @property
    def copied(self) -> int:
        """All bytes that the process or the kernel copied for it."""
        return self.copied_in + self.copied_out + self.copied_late + self.copied_inside


class Sample(msgspec.Struct, frozen=True):
    """One transfer: its duration, its cost on each side, and its serving paths.

    `calls` counts calls that moved bytes. `daemon` and `served` (bytes by serving path, from the
    daemon's ledger) are empty for the backing file.
    """

    ns: int
    delivered: int
    calls: int
    client: Side
    daemon: Side | None = None
    served: dict[str, int] = {}


class Figure(msgspec.Struct, frozen=True):
    """A quantity over the rounds."""

    median: float
    least: float
    most: float


Quantity = Callable[[Sample], float]


def errno_name(number: int) -> str:
    """The errno's name, as in manual pages; empty for other numbers."""
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, "")


def figure_of(values: Sequence[float]) -> Figure:
    """Median and spread of at least one value."""
    return Figure(statistics.median(values), min(values), max(values))


def _of_side(side: str, quantity: Callable[[Side, Sample], float]) -> Callable[[Sample], float]:
    def value(sample: Sample) -> float:
        found: Side | None = getattr(sample, side)
        return 0.0 if found is None else quantity(found, sample)

    return value


def _both(name: str, quantity: Callable[[Side, Sample], float]) -> dict[str, Quantity]:
    return {f"{side}_{name}": _of_side(side, quantity) for side in ("client", "daemon")}


# Events are counts of one transfer, unless the name says per GB or per byte.
QUANTITIES: Final[Mapping[str, Quantity]] = {
    "gb_per_s": lambda sample: sample.delivered / sample.ns,
    **_both("cpu_s_per_gb", lambda side, of: side.cpu_ns / _NS / (of.delivered / _GB)),
    **_both("copies_per_byte", lambda side, of: side.copied / of.delivered),
    **_both("voluntary_switches", lambda side, _: side.voluntary_switches),
    **_both("involuntary_switches", lambda side, _: side.involuntary_switches),
    **_both("minor_faults", lambda side, _: side.minor_faults),
    **_both("major_faults", lambda side, _: side.major_faults),
    **_both("resident_peak", lambda side, _: side.resident_peak),
    **_both("resident_rise", lambda side, _: side.resident_peak - side.resident_before),
}


class TransferCell(msgspec.Struct, frozen=True):
    """A method, from a column, to a sink, in a cache state; or the reason why it is unavailable.

    `identical` is whether the receiver's checksum matched the backing file's; None without a
    receiver.
    """

    method: str
    column: str
    sink: str
    cache: str
    samples: tuple[Sample, ...] = ()
    reason: str = ""
    errno: int = 0
    notes: tuple[str, ...] = ()
    identical: bool | None = None

    @property
    def figures(self) -> dict[str, Figure]:
        """Every quantity, by its name in `QUANTITIES`; empty without a sample."""
        if not self.samples:
            return {}
        return {
            name: figure_of([value(sample) for sample in self.samples])
            for name, value in QUANTITIES.items()
        }

    @property
    def short_reason(self) -> str:
        """A short form of `reason` for a table."""
        return errno_name(self.errno) or "-"


def side_of_client(counts: Mapping[str, int | str]) -> Side:
    """The client's side of its native module's counts."""
    return msgspec.convert(counts, Side)


def side_of_daemon(usage: ProcessUsage, resident_before: int, resident_peak: int) -> Side:
    """The daemon's side, from the difference of two snapshots."""
    return Side(
        cpu_ns=usage.cpu_ns,
        copied_in=usage.io.rchar,
        copied_out=usage.io.wchar,
        voluntary_switches=sum(thread.voluntary_switches for thread in usage.threads),
        involuntary_switches=sum(thread.involuntary_switches for thread in usage.threads),
        minor_faults=usage.minor_faults,
        major_faults=usage.major_faults,
        rchar=usage.io.rchar,
        wchar=usage.io.wchar,
        resident_before=resident_before,
        resident_peak=resident_peak,
    )
