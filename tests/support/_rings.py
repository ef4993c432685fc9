"""The kernel's switch for FUSE over io_uring, which zcfuse itself never changes.

While it is on, the kernel offers a ring to every new mount of the machine. Tests that need it on
are marked `ring`; ``pytest --rings`` switches it on once for a run of them, so that they do not
wait for one another.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Final

RING_SWITCH: Final = "/sys/module/fuse/parameters/enable_uring"
# In the environment of a run that keeps the switch on, and of its workers.
_KEPT_ON: Final = "ZCFUSE_TESTS_RINGS"


@contextlib.contextmanager
def rings_on() -> Iterator[None]:
    """Switch FUSE over io_uring on, unless the run keeps it on."""
    if _KEPT_ON in os.environ:
        yield
        return
    with _locked() as before:
        _switch("Y")
        try:
            yield
        finally:
            _switch(before)


@contextlib.contextmanager
def rings_off() -> Iterator[None]:
    """Switch it off. Only tests marked `alone` may: mounts of other tests would get no ring."""
    assert _KEPT_ON not in os.environ
    with _locked() as before:
        _switch("N")
        try:
            yield
        finally:
            _switch(before)


@contextlib.contextmanager
def kept_on() -> Iterator[None]:
    """Keep it on for a run and for its workers."""
    with rings_on():
        os.environ[_KEPT_ON] = "1"
        try:
            yield
        finally:
            del os.environ[_KEPT_ON]


@contextlib.contextmanager
def _locked() -> Iterator[str]:
    """Return the machine's own value.

    Without the lock, another run of the tests would take a changed value for the machine's and
    restore the wrong one.
    """
    with open(RING_SWITCH, encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.read()


def _switch(value: str) -> None:
    with open(RING_SWITCH, "w", encoding="ascii") as file:
        file.write(value)
