"""A FUSE daemon as a child process: mounts, and unmounts whatever happens.

Only `running` mounts. It owns the process and the mount. If a daemon does not unmount, `running`
aborts the connection, detaches the mount and kills the process. All waits are bounded. This module
never touches the mountpoint, so it cannot hang on a dead daemon.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

import zcfuse
from zcfuse.audit import detach_mountpoint, kernel_device

_MOUNT_DEADLINE_S: Final = 20.0
_UNMOUNT_DEADLINE_S: Final = 10.0
_KILL_DEADLINE_S: Final = 5.0
_POLL_S: Final = 0.01
_CONNECTIONS: Final = "/sys/fs/fuse/connections"
_LOG_LINE_LIMIT: Final = 300  # characters of a daemon's last line that fit a table


class MountFailedError(Exception):
    """The daemon did not mount; the message is the last line it wrote."""


class RunningMount(msgspec.Struct, frozen=True):
    """A mount: its daemon's process id and its kernel device number."""

    mountpoint: str
    pid: int
    device: int
    kind: str

    def path(self, name: str) -> str:
        """The path of a file in the mount."""
        return os.path.join(self.mountpoint, name)


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def find_mount(mountpoint: str, mountinfo: str) -> tuple[str, int] | None:
    """The type and kernel device number of the topmost mount on `mountpoint`, from mountinfo."""
    found = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if _unescaped(fields[4]) == mountpoint:
            major, _, minor = fields[2].partition(":")
            found = after.split(" ")[0], kernel_device(int(major), int(minor))
    return found


def _mounted(mountpoint: str) -> tuple[str, int] | None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return find_mount(mountpoint, file.read())


def child_environment() -> dict[str, str]:
    """The environment in which a child imports this package."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(zcfuse.__file__)))
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{others}" if others else root}


def zcfuse_command(source: str | None, mountpoint: str, options: Sequence[str]) -> list[str]:
    """The command line of zcfuse's daemon in the foreground.

    Without a `source`, `options` select the tree.
    """
    start = [sys.executable, "-P", "-m", "zcfuse", "mount"]
    shown = [] if source is None else [source]
    return [*start, *shown, mountpoint, "--foreground", *options]


@contextlib.contextmanager
def running(
    argv: Sequence[str], mountpoint: str, environment: Mapping[str, str] | None = None
) -> Iterator[RunningMount]:
    """Run `argv`, a foreground daemon that mounts on `mountpoint`, during the block.

    Raises `MountFailedError` if it does not mount. At the end the daemon gets SIGTERM; after ten
    seconds this aborts its connection, detaches the mount and kills the process.
    """
    mountpoint = os.path.realpath(mountpoint)
    before = _mounted(mountpoint)
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**child_environment(), **(environment or {})},
            )
        except OSError as error:
            raise MountFailedError(f"{argv[0]}: {error.strerror}") from error
        try:
            kind, device = _wait_for_mount(process, mountpoint, before, log.fileno())
            yield RunningMount(mountpoint, process.pid, device, kind)
        finally:
            _end(process, mountpoint, before)


@contextlib.contextmanager
def traced(mountpoint: str) -> Iterator[None]:
    """Trace a mount with `zcfuse trace` into a file, which is then removed, during the block.

    Raises `MountFailedError` if the first event does not come.
    """
    with tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "zcfuse", "trace", mountpoint],
            stdin=subprocess.DEVNULL,
            stdout=events,
            stderr=log,
            env=child_environment(),
        )
        try:
            deadline = time.monotonic() + _MOUNT_DEADLINE_S
            names = itertools.count()
            while not os.fstat(events.fileno()).st_size:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise MountFailedError(_last_words(log.fileno()) or "no event in the trace")
                os.path.lexists(os.path.join(mountpoint, f".no-such-name-{next(names)}"))
                time.sleep(_POLL_S)
            yield
        finally:
            process.kill()
            process.wait()


def _wait_for_mount(
    process: subprocess.Popen[bytes],
    mountpoint: str,
    before: tuple[str, int] | None,
    log: int,
) -> tuple[str, int]:
    deadline = time.monotonic() + _MOUNT_DEADLINE_S
    while True:
        found = _mounted(mountpoint)
        if found is not None and found != before:
            return found
        if process.poll() is not None:
            raise MountFailedError(_last_words(log) or f"exit status {process.returncode}")
        if time.monotonic() > deadline:
            raise MountFailedError(f"no mount after {_MOUNT_DEADLINE_S:.0f} s")
        time.sleep(_POLL_S)


def _last_words(log: int) -> str:
    lines = os.pread(log, 1 << 16, 0).decode(errors="replace").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    return words[-1].removeprefix("zcfuse: ")[:_LOG_LINE_LIMIT] if words else ""


def _end(process: subprocess.Popen[bytes], mountpoint: str, before: tuple[str, int] | None) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_UNMOUNT_DEADLINE_S)
    left = _mounted(mountpoint)
    if left is not None and left != before:
        give_up(mountpoint, left[1])
    if process.poll() is None:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILL_DEADLINE_S)


def give_up(mountpoint: str, device: int) -> None:
    """End the connection of a mount, so that its clients get ENOTCONN, and detach it.

    It tries the connection's abort file first, which needs fusectl. A forced unmount also aborts.
    """
    with (
        contextlib.suppress(OSError),
        open(f"{_CONNECTIONS}/{device}/abort", "w", encoding="ascii") as file,
    ):
        file.write("1")
    with contextlib.suppress(OSError):
        detach_mountpoint(mountpoint)
        return
    command = ["fusermount3", "-u", "-z", "-q", "--", mountpoint]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, timeout=_KILL_DEADLINE_S, check=False, capture_output=True)
