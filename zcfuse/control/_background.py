"""Starts a daemon in the background: a child process. The parent returns once the mount answers.

This module forks, so it must run before trio or any thread exists, and it imports neither. The
child sends its parent one line over a pipe: it is ready, or the reason why not. If the child dies
first, the pipe closes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn, TextIO

import msgspec

from zcfuse.linux import MountError

# Imports, mount(2) or fusermount3, and INIT take a second on a slow machine. A large tree on a busy
# one takes minutes: a child that had this share of a processor meanwhile is at work.
READY_TIMEOUT_S: Final = 30.0
_AT_WORK: Final = 0.01
_MOST_TIMEOUTS: Final = 40
# For a child that has to end: a bounded unmount and the end of its threads.
_END_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.02


class _Report(msgspec.Struct):
    """The child's message: ready, or an error."""

    ready: bool
    message: str = ""
    usage: bool = False


def run_in_background(
    daemon: Callable[[Callable[[], None]], int],
    check: Callable[[], None],
    *,
    error_output: TextIO | None,
) -> int:
    """Run a daemon in a child with a new session, and wait until it is ready.

    Parameters:
        daemon: runs in the child; calls its argument when it is ready, and returns the child's
            exit status.
        check: runs in this process once the daemon is ready; raises MountError if the mount does
            not answer.
        error_output: the child's standard error after it is ready; None discards its output.

    Returns:
        The process id of the daemon.

    Raises:
        MountError: the daemon died, refused, or was not ready in time. No daemon remains.
    """
    return _start(lambda writer: _run_child(daemon, writer, error_output), check)


def run_program_in_background(
    arguments: Callable[[int], list[str]], check: Callable[[], None]
) -> int:
    """Execute a program in a child, like `run_in_background`.

    Parameters:
        arguments: returns the program's path and arguments. Its argument is the descriptor that the
            program inherits for `report_ready` or `report_failure`.
        check: see `run_in_background`.

    Returns:
        The process id of the program.

    Raises:
        MountError: see `run_in_background`.
    """
    return _start(lambda writer: _become(arguments, writer), check)


def _start(run_child: Callable[[int], NoReturn], check: Callable[[], None]) -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    # An interrupt must not come between the fork and the block that ends the child for it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(reader)
        run_child(writer)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(writer)
        _await_ready(reader, child)
        check()
    except BaseException:
        # Also after an interrupt, because the user would not know of the mount.
        end_daemon(child)
        raise
    finally:
        os.close(reader)
    return child


def _await_ready(reader: int, child: int) -> None:
    report = _read_report(reader, child)
    if report is None:
        raise MountError(f"the daemon {_how_it_ended(child)} before the mount was ready")
    if not report.ready:
        raise MountError(report.message, usage=report.usage)


def _read_report(reader: int, child: int) -> _Report | None:
    received = b""
    while not received.endswith(b"\n"):
        before = _processor_seconds(child)
        waited = 0
        while not select.select([reader], [], [], READY_TIMEOUT_S)[0]:
            waited += 1
            used = _processor_seconds(child)
            if waited == _MOST_TIMEOUTS or used - before < _AT_WORK * READY_TIMEOUT_S:
                raise MountError(
                    f"the mount was not ready within {waited * READY_TIMEOUT_S:g} s:"
                    " try --foreground to see why"
                )
            before = used
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return None
        received += chunk
    return msgspec.json.decode(received, type=_Report)


def _processor_seconds(child: int) -> float:
    # As clock_getcpuclockid(3) makes it; Python has no name for it.
    return time.clock_gettime((~child << 3) | 2)


def _how_it_ended(child: int) -> str:
    status = _wait(child, _END_TIMEOUT_S)
    if status is None:
        return "closed its pipe"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def end_daemon(child: int) -> None:
    """End the daemon that this process started: ask it, wait, then kill it if it still runs."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)
        if _wait(child, _END_TIMEOUT_S) is not None:
            return


def _wait(child: int, seconds: float) -> int | None:
    """Return the exit status (negative: a signal's number), or None if the child still runs."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            pid, status = os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL_S)


def _become(arguments: Callable[[int], list[str]], writer: int) -> NoReturn:
    try:
        _leave_caller()
        os.set_inheritable(writer, True)
        program = arguments(writer)
        os.execv(program[0], program)
    except BaseException as error:
        report_failure(writer, error)
    finally:
        os._exit(1)


def _run_child(
    daemon: Callable[[Callable[[], None]], int], writer: int, error_output: TextIO | None
) -> NoReturn:
    status = 1
    try:
        _leave_caller()
        status = daemon(lambda: report_ready(writer, error_output))
    except BaseException as error:
        if error_output is not None and not isinstance(error, MountError):
            traceback.print_exc(file=error_output)
        status = report_failure(writer, error)
    finally:
        # Skip the parent's handlers (atexit, buffers), which must run only once.
        os._exit(status)


def _leave_caller() -> None:
    """Keep neither the caller's directory nor its terminal in use, except for errors."""
    _close_inherited()
    os.chdir("/")
    _redirect(os.devnull, sys.stdin.fileno() if sys.stdin else 0)
    _redirect(os.devnull, 1)


def report_ready(writer: int, error_output: TextIO | None) -> None:
    """Tell the waiting parent that the mount answers, and leave its session and terminal.

    Parameters:
        writer: the pipe to the parent.
        error_output: this process's standard error from now on; None discards it.

    Raises:
        OSError: the parent is gone.
    """
    # Only now: if systemd mounts on demand (autofs), the kernel lets only systemd's process group
    # pass the mount point until the mount exists.
    os.setsid()
    _send(writer, _Report(ready=True))
    _end_standard_error(error_output)


def report_failure(writer: int, error: BaseException) -> int:
    """Tell the waiting parent why there is no mount; return the exit status for it."""
    usage = isinstance(error, MountError) and error.usage
    message = str(error) if isinstance(error, MountError) else f"the daemon failed: {error!r}"
    _send_quietly(writer, _Report(ready=False, message=_encodable(message), usage=usage))
    return 2 if usage else 1


def _encodable(text: str) -> str:
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _send(writer: int, report: _Report) -> None:
    os.write(writer, msgspec.json.encode(report) + b"\n")


def _send_quietly(writer: int, report: _Report) -> None:
    with contextlib.suppress(OSError):
        _send(writer, report)


def _end_standard_error(error_output: TextIO | None) -> None:
    if error_output is None:
        _redirect(os.devnull, 2)
    else:
        os.dup2(error_output.fileno(), 2)


def _close_inherited() -> None:
    """Close the locks, pipes and terminals that the caller passed on, except the standard three.

    Descriptors that this process opened lack the inheritable flag (PEP 446), and stay open.
    """
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        with contextlib.suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                os.close(number)


def _redirect(path: str, descriptor: int) -> None:
    opened = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(opened, descriptor)
    os.close(opened)
