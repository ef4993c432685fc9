"""A line that says how far it is, for somebody who waits at a terminal."""

from __future__ import annotations

import sys
import time
from typing import Final

_PATIENCE_S: Final = 0.5  # without a word to a terminal
_WIPE: Final = "\r\x1b[K"


class Progress:
    """Shows `what` and a percentage on standard error, where that is a terminal."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._began = time.monotonic()
        self._shown = False

    def show(self, done: int, total: int) -> None:
        """Say how much of it was done."""
        if not sys.stderr.isatty() or time.monotonic() - self._began < _PATIENCE_S:
            return
        self._shown = True
        percent = 100 * done // total if total else 100
        print(f"{_WIPE}{self.what}: {percent} %", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print(_WIPE, end="", file=sys.stderr, flush=True)
