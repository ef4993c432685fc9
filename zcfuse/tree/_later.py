"""Answers that a server has to give first, behind calls that are plain calls.

A call that lacks such an answer raises `NotYetError`. The caller awaits the answer and makes the
call again. So a tree of trees, such as a union, needs no code that waits.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

from zcfuse.tree._near import ask_far
from zcfuse.tree._types import Answer

_T = TypeVar("_T")

_since: Final[ContextVar[float]] = ContextVar("since", default=math.inf)


class NotYetError(BaseException):
    """A server has to be asked first; await `wait()`, and make the same call again.

    No Exception: code that turns failures into answers must let it pass. If `wait` raises an error,
    the call ends with it.
    """

    def __init__(self, wait: Callable[[], Awaitable[None]]) -> None:
        super().__init__("a server has to be asked first")
        self.wait = wait


def asked_since() -> float:
    """Return since when answers count as fresh for this task's call, in `time.monotonic()`.

    It ends the repetitions where answers may not be kept for any time. Infinity: no call is being
    repeated.
    """
    return _since.get()


@contextlib.contextmanager
def fresh_since(moment: float) -> Iterator[None]:
    """Let answers count as fresh that came after a moment (`time.monotonic()`)."""
    token = _since.set(moment)
    try:
        yield
    finally:
        _since.reset(token)


def answered(call: Callable[[], _T]) -> Answer[_T]:
    """Return what a call returns, or an awaitable of it that waits for servers."""
    try:
        return call()
    except NotYetError as error:
        return _repeated(call, error)


async def _repeated(call: Callable[[], _T], error: NotYetError) -> _T:
    with fresh_since(time.monotonic()):
        while True:
            await error.wait()
            try:
                return await ask_far(call)
            except NotYetError as again:
                error = again
