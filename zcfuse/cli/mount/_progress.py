"""Says how far a long start is: to a terminal as a line, to the service manager as a request."""

from __future__ import annotations

import sys
import time
from typing import Final

from zcfuse.admin import ServiceManager

_PATIENCE_S: Final = 0.5  # without a word to a terminal
_EXTEND_EVERY_S: Final = 10.0
_EXTEND_BY_S: Final = 600  # as TimeoutStartSec= of the unit
_WIPE: Final = "\r\x1b[K"


class Progress:
    """Shows `what` and a percentage on standard error, where that is a terminal."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._began = time.monotonic()
        self._shown = False
        self._extended = self._began

    def show(self, done: int, total: int) -> None:
        """Say how much of it was done."""
        self._say(f"{100 * done // total if total else 100} %")

    def count(self, done: int) -> None:
        """Say how much was done, of a total that is not known."""
        self._say(f"{done:,}")

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print(_WIPE, end="", file=sys.stderr, flush=True)

    def _say(self, how_far: str) -> None:
        now = time.monotonic()
        if now - self._extended > _EXTEND_EVERY_S:
            self._extended = now
            ServiceManager.extend_start(_EXTEND_BY_S)
        if not sys.stderr.isatty() or now - self._began < _PATIENCE_S:
            return
        self._shown = True
        print(f"{_WIPE}{self.what}: {how_far}", end="", file=sys.stderr, flush=True)
