"""Shows the progress of a long start on a terminal, and asks the service manager for more time."""

from __future__ import annotations

import sys
import time
from typing import Final

from zcfuse.admin import ServiceManager

_PATIENCE_S: Final = 0.5  # how long to wait before the first line on a terminal
_EXTEND_EVERY_S: Final = 10.0
_EXTEND_BY_S: Final = 600  # as TimeoutStartSec= of the unit
_WIPE: Final = "\r\x1b[K"


class Progress:
    """Shows `what` and a percentage on standard error, if standard error is a terminal."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._began = time.monotonic()
        self._shown = False
        self._extended = self._began

    def show(self, done: int, total: int) -> None:
        """Show the finished part of the total."""
        self._say(f"{100 * done // total if total else 100} %")

    def count(self, done: int) -> None:
        """Show the finished amount of an unknown total."""
        self._say(f"{done:,}")

    def end(self) -> None:
        """Clear the line."""
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
