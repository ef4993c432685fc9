"""Keeps a thread that must not wait away from filesystems that may never answer.

A tree's calls are plain system calls. A thread that serves others makes them within `near_only`. A
call that leads to a FUSE or network filesystem then raises `FarError` before the kernel sends a
request, and the caller makes the same call again in a thread that may wait. The state belongs to
the thread; outside of `near_only` calls go wherever they lead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, TypeVar

from zcfuse.linux import NEAR_MOUNTS

_T = TypeVar("_T")


class FarError(BaseException):
    """The call leads to a filesystem that may not answer; `mount` is the id of its mount, or 0.

    No Exception: code that turns failures into answers must let it pass.
    """

    def __init__(self, mount: int) -> None:
        super().__init__(f"mount {mount} may not answer")
        self.mount = mount


class AskFar(Protocol):
    """Makes a call that may go far, without holding up the thread that awaits it."""

    async def __call__(self, call: Callable[[], _T], /) -> _T:
        """Return what `call` returns, or raise what it raises."""


class _Thread(threading.local):
    near_only = False

    def __init__(self) -> None:
        self.ask_far: list[AskFar] = []


_thread: Final = _Thread()


class _NearOnly:
    """A reusable context. A call within a call of the same thread changes nothing."""

    def __enter__(self) -> None:
        _thread.near_only = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _thread.near_only = False


near_only: Final = _NearOnly()


def must_stay_near() -> bool:
    """Say whether this thread's calls must stay on near filesystems now."""
    return _thread.near_only


def require_near_mount(mount: int) -> None:
    """Raise FarError where this thread must stay near and the mount is far."""
    if _thread.near_only and not NEAR_MOUNTS.is_near(mount):
        raise FarError(mount)


def require_near_name(name: bytes) -> None:
    """Raise FarError where this thread must stay near and a far mount's point has this name."""
    if _thread.near_only:
        mount = NEAR_MOUNTS.far_named(name)
        if mount is not None:
            raise FarError(mount)


def require_near_path(path: bytes) -> None:
    """Raise FarError where this thread must stay near and a path's text leads through a far mount.

    Symbolic links in the path are the caller's to refuse.
    """
    if _thread.near_only:
        mount = NEAR_MOUNTS.far_above(path)
        if mount is not None:
            raise FarError(mount)


def begin_ask_far(ask: AskFar) -> None:
    """Say how tasks of this thread make calls that may go far; the latest one counts."""
    _thread.ask_far.append(ask)


def end_ask_far(ask: AskFar) -> None:
    """Take back what `begin_ask_far` said. Another mount of the thread may have said the same."""
    if ask in _thread.ask_far:
        _thread.ask_far.remove(ask)


async def ask_far(call: Callable[[], _T]) -> _T:
    """Make a call of a task that may go far: as `begin_ask_far` says, otherwise here."""
    return await _thread.ask_far[-1](call) if _thread.ask_far else call()
