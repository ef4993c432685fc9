"""Calls that may go far: bounded in number and time, and made near where that is enough."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from zcfuse.fuse import _far
from zcfuse.fuse._far import PLACES, FarCalls
from zcfuse.tree import FarError
from zcfuse.tree._near import require_near_mount

WAIT_S = 20
# Not the id of any mount.
FAR_MOUNT = 2**62


def far_call(work: Callable[[], str]) -> Callable[[], str]:
    """A call to a far filesystem: it raises FarError in the trio thread."""

    def call() -> str:
        require_near_mount(FAR_MOUNT)
        return work()

    return call


@pytest.fixture
def held():
    """A call that does not return until the test ends."""
    event = threading.Event()
    yield lambda: str(event.wait(WAIT_S))
    event.set()


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_far, "PATIENCE_S", 0.05)


async def test_a_near_call_is_made_in_the_thread_that_asks() -> None:
    far = FarCalls(1)
    assert await far.ask(threading.get_ident) == (threading.get_ident(), None)
    assert far.statistics().calls == 0


async def test_a_far_call_is_made_in_another_thread() -> None:
    far = FarCalls(WAIT_S)
    found, mount = await far.ask(far_call(lambda: str(threading.get_ident())))
    assert found != str(threading.get_ident())
    assert mount == FAR_MOUNT
    assert far.statistics().calls == 1


async def test_what_a_far_call_raises_reaches_the_client() -> None:
    def missing() -> str:
        raise FileNotFoundError(errno.ENOENT, "missing")

    with pytest.raises(FileNotFoundError):
        await FarCalls(WAIT_S).ask(far_call(missing))


async def test_a_call_that_does_not_return_is_given_up(held, short_patience) -> None:
    far = FarCalls(0.1)
    with pytest.raises(TimeoutError):
        await far.ask(far_call(held))
    assert (far.statistics().timed_out, far.statistics().running) == (1, 1)


async def test_a_silent_filesystem_is_asked_no_more_until_it_answers(short_patience) -> None:
    far = FarCalls(0.1)
    release = threading.Event()
    with pytest.raises(TimeoutError):
        await far.ask(far_call(lambda: str(release.wait(WAIT_S))))
    with pytest.raises(TimeoutError):
        await far.ask(far_call(lambda: "never called"))
    assert far.statistics().refused == 1
    release.set()
    with trio.fail_after(WAIT_S):
        while far.statistics().running:
            await trio.lowlevel.checkpoint()
    assert (await far.ask(far_call(lambda: "answered")))[0] == "answered"


async def test_calls_beyond_the_places_wait_for_one_in_vain(held, short_patience) -> None:
    far = FarCalls(WAIT_S)
    async with trio.open_nursery() as nursery:
        for _ in range(PLACES):
            nursery.start_soon(far.ask, far_call(held))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TimeoutError):
            await far.ask(far_call(lambda: "never called"))
        nursery.cancel_scope.cancel()


async def test_a_result_that_comes_too_late_is_dropped(short_patience) -> None:
    far = FarCalls(0.1)
    release, dropped = threading.Event(), threading.Event()
    with pytest.raises(TimeoutError):
        await far.ask(far_call(lambda: str(release.wait(WAIT_S))), lambda _: dropped.set())
    release.set()
    assert await trio.to_thread.run_sync(dropped.wait, WAIT_S)


def test_far_error_is_no_exception_that_a_policy_would_catch() -> None:
    assert not issubclass(FarError, Exception)
