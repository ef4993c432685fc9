"""A log handler that limits each kind of message, so that no client can fill the disk.

A kind is the place in the program that logs. Each kind may write a limited number of messages in a
period; then one line counts the others. The handler's lock protects all state.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final, TextIO

PERIOD_S: Final = 10.0
MESSAGES_PER_PERIOD: Final = 20

_Kind = tuple[str, int]


@dataclass
class _Period:
    """The messages of one kind since `began`, in seconds of the monotonic clock."""

    name: str
    level: int
    example: str
    began: float
    written: int = 0
    left_out: int = 0


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes records to a stream, a limited number of each kind in each period."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._periods: dict[_Kind, _Period] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or only count it."""
        if record.levelno < logging.WARNING:
            return super().emit(record)  # no client causes these
        now = time.monotonic()
        self._end_periods(now)
        kind = (record.pathname, record.lineno)
        period = self._periods.get(kind)
        if period is None:
            period = _Period(record.name, record.levelno, str(record.msg), now)
            self._periods[kind] = period
        if period.written < MESSAGES_PER_PERIOD:
            period.written += 1
            return super().emit(record)
        period.left_out += 1
        return None

    def close(self) -> None:
        """Write the pending counts, and close as any handler does."""
        self.acquire()
        try:
            self._end_periods(float("inf"))
        finally:
            self.release()
        super().close()

    def _end_periods(self, now: float) -> None:
        over = [kind for kind, one in self._periods.items() if now - one.began >= PERIOD_S]
        for kind in over:
            period = self._periods.pop(kind)
            if period.left_out:
                super().emit(_note(period))


def _note(period: _Period) -> logging.LogRecord:
    text = f"{period.left_out} more messages of this kind left out: {period.example}"
    return logging.LogRecord(period.name, period.level, __file__, 0, text, None, None)
