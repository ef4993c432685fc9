"""The one place where an operation is counted and its failure becomes an errno.

pyfuse3 ends its loop, and with it the mount, when a handler raises anything but FUSEError. A tree
is the user's code and may raise any exception: the client gets EIO, and the log a traceback.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from zcfuse.fuse._sessions import Session

LOG: Final = logging.getLogger("zcfuse.control")

# The kernel ignores a reply with an errno outside this range (fs/fuse/dev.c), and the client would
# wait forever.
_ERRNO_LIMIT: Final = 512

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Tally:
    """Counts of upcalls by operation and of replied errors by name of the errno."""

    __slots__ = ("errors", "upcalls")

    def __init__(self) -> None:
        self.upcalls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()


class _Tallied(Protocol):
    tally: Tally
    session: Session


_S = TypeVar("_S", bound=_Tallied)


def handler(
    method: Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]]:
    """Count the operation, and let nothing out of it but FUSEError, cancellation and Ctrl-C."""
    operation = method.__name__

    @functools.wraps(method)
    async def handle(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        self.tally.upcalls[operation] += 1
        try:
            return await method(self, *args, **kwargs)
        except (pyfuse3.FUSEError, OSError) as error:
            _reply_error(self, error.errno)
        except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:
            LOG.exception("%s failed with something that is no OSError", operation)
            _reply_error(self, errno.EIO)

    return handle


def of_type(kind: type[_T], value: object) -> _T:
    """Return `value`, or raise TypeError here, where it is still one request's failure."""
    if not isinstance(value, kind):
        raise TypeError(f"the tree returned {type(value).__name__} instead of {kind.__name__}")
    return value


def _reply_error(operations: _Tallied, number: int | None) -> NoReturn:
    if number is None or not 0 < number < _ERRNO_LIMIT:
        number = errno.EIO
    elif number == errno.ENOSYS:
        number = errno.EOPNOTSUPP
    operations.tally.errors[errno.errorcode.get(number, str(number))] += 1
    raise operations.session.FUSEError(number) from None
