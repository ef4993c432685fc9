"""The daemon's work while a client runs, by the kernel's count and by the ledger."""

import contextlib
import time
from typing import Final

from zcfuse.admin.status import StatusError, read_status
from zcfuse.audit import Ledger, ledger_of, read_usage
from zcfuse.bench._daemons import RunningMount
from zcfuse.bench.transfer._cells import Side, side_of_daemon
from zcfuse.reasons import reason_text

_RESET_PEAK: Final = "5"  # proc(5), clear_refs
_MENTIONED_SHARE: Final = 0.01
_ANSWER_DEADLINE_S: Final = 10.0
_POLL_S: Final = 0.02


class Watched:
    """Counts while its block runs; `side` and `served` are empty for the backing file.

    The ledger's interval encloses the kernel's, because reading the ledger costs the daemon a few
    calls. Raises `StatusError` if the daemon does not answer, `OSError` if it is gone.
    """

    def __init__(self, mount: RunningMount | None) -> None:
        self._mount = mount
        self._fallbacks: dict[str, int] = {}
        self.side: Side | None = None
        self.served: dict[str, int] = {}

    def __enter__(self) -> "Watched":
        if self._mount is not None:
            self._ledger = _ledger(self._mount)
            _reset_peak(self._mount.pid)
            self._resident, _ = _resident_bytes(self._mount.pid)
            self._usage = read_usage(self._mount.pid)
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        if self._mount is None or kind is not None:
            return
        usage = read_usage(self._mount.pid).since(self._usage)
        _, peak = _resident_bytes(self._mount.pid)
        self.side = side_of_daemon(usage, self._resident, peak)
        ledger = _ledger(self._mount)
        self._fallbacks = ledger.fallbacks
        paths = ledger.since(self._ledger).paths
        self.served = {name: path.bytes for name, path in paths.items() if path.bytes}

    def served_otherwise(self, path: str) -> tuple[str, float]:
        """Return which other paths served bytes, with the recorded reasons, and their share."""
        others = {name: size for name, size in self.served.items() if name != path}
        share = sum(others.values()) / max(1, sum(self.served.values()))
        if share <= _MENTIONED_SHARE:
            return "", share
        shares = ", ".join(f"{size >> 10} KiB by {name}" for name, size in sorted(others.items()))
        reasons = "; ".join(reason_text(one) for one, count in self._fallbacks.items() if count)
        return f"served {shares}" + (f" ({reasons})" if reasons else ""), share


def _ledger(mount: RunningMount) -> Ledger:
    """Retry: the socket may appear a moment after the mount."""
    deadline = time.monotonic() + _ANSWER_DEADLINE_S
    while True:
        try:
            return ledger_of(read_status(mount.mountpoint))
        except StatusError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_S)


def _reset_peak(pid: int) -> None:
    """Reset the peak; if not permitted, the peak covers the process's whole life."""
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file,
    ):
        file.write(_RESET_PEAK)


def _resident_bytes(pid: int) -> tuple[int, int]:
    """Current and peak resident memory in bytes; 0 for an ended process."""
    found = {"VmRSS": 0, "VmHWM": 0}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]
