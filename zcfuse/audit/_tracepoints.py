"""Counts from the kernel's tracepoints: FUSE requests of a mount, system calls of a process.

This module needs only a tracepoint's number from tracefs. If tracefs is not mounted, it mounts it
detached, invisible to other processes, while it reads the number. Perf events with a filter do the
counting, also on kernels without hist triggers. It needs CAP_SYS_ADMIN or CAP_PERFMON; otherwise
`CountUnavailableError` carries the reason.
"""

import contextlib
import errno
import fcntl
import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from zcfuse.audit._process import thread_ids
from zcfuse.linux import detached_mount, perf_event_open

_TRACEFS_PLACES: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_PERF_TYPE_TRACEPOINT: Final = 2
_ATTRIBUTE_BYTES: Final = 112  # PERF_ATTR_SIZE_VER5: every kernel since 4.1 accepts it
_DISABLED: Final = 1 << 0
_INHERIT: Final = 1 << 1
_IOC_ENABLE: Final = 0x2400
_IOC_DISABLE: Final = 0x2401
_IOC_SET_FILTER: Final = 0x40082406

# Operations with a separate counter; each counter costs one descriptor per CPU.
OPCODES: Final[Mapping[str, int]] = {
    "LOOKUP": 1,
    "GETATTR": 3,
    "OPEN": 14,
    "READ": 15,
    "RELEASE": 18,
    "FLUSH": 25,
    "READDIRPLUS": 44,
}


class CountUnavailableError(Exception):
    """The kernel or the privileges do not allow the count; the message says why."""


def _reason(action: str, error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{action}: {error.strerror} (needs CAP_SYS_ADMIN)"
    return f"{action}: {error.strerror}"


@contextlib.contextmanager
def _tracefs() -> Iterator[int]:
    """Yield a descriptor of tracefs' events; mounts tracefs detached for this block if
    necessary."""
    for place in _TRACEFS_PLACES:
        with contextlib.suppress(OSError):
            fd = os.open(f"{place}/events", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            break
    else:
        root = detached_mount(b"tracefs")
        try:
            fd = os.open("events", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        finally:
            os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def tracepoint_id(name: str) -> int:
    """The number of tracepoint `name`, such as "fuse:fuse_request_send".

    Raises `CountUnavailableError` if tracefs is unreadable or lacks the tracepoint.
    """
    path = f"{name.replace(':', '/')}/id"
    try:
        with _tracefs() as events:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=events)
            try:
                return int(os.read(fd, 32))
            finally:
                os.close(fd)
    except FileNotFoundError as error:
        raise CountUnavailableError(f"this kernel has no tracepoint {name}") from error
    except OSError as error:
        raise CountUnavailableError(_reason("tracefs", error)) from error


def _attributes(tracepoint: int) -> bytes:
    """A perf_event_attr that counts, starts stopped, and follows later threads."""
    head = struct.pack(
        "=IIQQQQQ",
        _PERF_TYPE_TRACEPOINT,
        _ATTRIBUTE_BYTES,
        tracepoint,
        0,
        0,
        0,
        _DISABLED | _INHERIT,
    )
    return head.ljust(_ATTRIBUTE_BYTES, b"\0")


class _Counter(ABC):
    """A counter, which the end of a ``with`` block closes."""

    @abstractmethod
    def close(self) -> None:
        """Stop counting and free what counts; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class TracepointCounter(_Counter):
    """Hits of one tracepoint, summed over the given (pid, cpu) pairs. Owns its descriptors.

    It counts from construction until `stop` or `close`; call `count` at any time before `close`. A
    (-1, cpu) pair counts every process on that CPU, a (tid, -1) pair one thread on any CPU.
    """

    def __init__(
        self, tracepoint: int, where: Iterable[tuple[int, int]], event_filter: str = ""
    ) -> None:
        self._fds: list[int] = []
        attributes = _attributes(tracepoint)
        try:
            for pid, cpu in where:
                self._open(attributes, pid, cpu, event_filter)
            self._for_each(_IOC_ENABLE)
        except OSError as error:
            self.close()
            raise CountUnavailableError(_reason("perf_event_open", error)) from error

    def _open(self, attributes: bytes, pid: int, cpu: int, event_filter: str) -> None:
        try:
            fd = perf_event_open(attributes, pid, cpu)
        except ProcessLookupError:
            return  # the thread ended after the listing
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # an offline CPU sends nothing
            raise
        self._fds.append(fd)
        if event_filter:
            fcntl.ioctl(fd, _IOC_SET_FILTER, event_filter.encode() + b"\0")

    def _for_each(self, request: int) -> None:
        for fd in self._fds:
            fcntl.ioctl(fd, request, 0)

    def count(self) -> int:
        """Hits so far."""
        return sum(int.from_bytes(os.read(fd, 8), "little") for fd in self._fds)

    def stop(self) -> None:
        """Stop counting; `count` still works."""
        self._for_each(_IOC_DISABLE)

    def close(self) -> None:
        """Close the descriptors; safe to call twice."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


def kernel_device(major: int, minor: int) -> int:
    """The kernel's internal device number (20 bits of minor), as in the field `connection`."""
    return (major << 20) | minor


def online_cpus(text: str | None = None) -> list[int]:
    """The CPUs that are online, from /sys/devices/system/cpu/online such as "0-3,6"."""
    if text is None:
        with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
            text = file.read()
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


class RequestCounter(_Counter):
    """Count FUSE requests that the kernel sends to one mount, in total and by operation.

    The tracepoint fuse:fuse_request_send fires before the daemon sees a request, and not for FORGET
    and INTERRUPT. `device` is the mount's kernel device number (see `kernel_device`). Costs one
    descriptor per CPU and operation.
    """

    def __init__(self, device: int, opcodes: Mapping[str, int] = OPCODES) -> None:
        tracepoint = tracepoint_id("fuse:fuse_request_send")
        everywhere = [(-1, cpu) for cpu in online_cpus()]
        self._counters: dict[str, TracepointCounter] = {}
        filters = {name: f" && opcode == {number}" for name, number in opcodes.items()}
        try:
            for name, suffix in {"": "", **filters}.items():
                self._counters[name] = TracepointCounter(
                    tracepoint, everywhere, f"connection == {device}{suffix}"
                )
        except CountUnavailableError:
            self.close()
            raise

    def count(self) -> dict[str, int]:
        """Requests so far by operation; the key "" holds the total."""
        return {name: counter.count() for name, counter in self._counters.items()}

    def close(self) -> None:
        """Stop and close; safe to call twice."""
        for counter in self._counters.values():
            counter.close()


def count_system_calls(pid: int) -> TracepointCounter:
    """Count the system calls that all threads of `pid` enter from now on (raw_syscalls:sys_enter).

    While it counts, every system call on the machine takes about 0.1 us longer, so do not measure
    small calls meanwhile.
    """
    tracepoint = tracepoint_id("raw_syscalls:sys_enter")
    return TracepointCounter(tracepoint, [(tid, -1) for tid in thread_ids(pid)])


def availability(probe: Callable[[], TracepointCounter | RequestCounter]) -> str:
    """Return why `probe` cannot count, or "" if it can."""
    try:
        probe().close()
    except CountUnavailableError as error:
        return str(error)
    return ""
