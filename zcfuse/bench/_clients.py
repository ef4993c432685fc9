"""The parent's end of a client process: ask for work, wait for the answer with a bound.

Owns the child. A client that is late is killed and `ClientTimedOutError` raised; the mount that
it hung on is its caller's to abort (`running` does when the daemon does not end).
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from zcfuse.bench._daemons import child_environment

DEADLINE_S: Final = 60.0
_START_DEADLINE_S: Final = 30.0
_END_DEADLINE_S: Final = 5.0


CLIENT_MODULE: Final = "zcfuse.bench._client"


class ClientError(Exception):
    """The client's work failed; the message is its error, `errno` its number where it has one."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ClientTimedOutError(ClientError):
    """The client was not back in time and has been killed."""


class Timing(msgspec.Struct, frozen=True):
    """What one piece of work took."""

    ns: int
    operations: int
    bytes: int

    @property
    def gb_per_s(self) -> float:
        """Throughput in GB (10^9 bytes) a second."""
        return self.bytes / self.ns if self.ns else 0.0

    @property
    def us_per_operation(self) -> float:
        """Microseconds an operation."""
        return self.ns / 1000 / self.operations if self.operations else 0.0


class ClientProcess:
    """A client process, which runs `module`; use `client()` to have it ended."""

    def __init__(self, module: str = CLIENT_MODULE) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=child_environment(),
        )
        self._pending = b""
        self.pid: Final = self._process.pid
        self.ask("close", deadline_s=_START_DEADLINE_S)

    def ask(self, command: str, *, deadline_s: float = DEADLINE_S, **arguments: object) -> object:
        """Have one command run and return its result.

        Raises `ClientError` where it failed or the client died, `ClientTimedOutError` after
        `deadline_s` seconds.
        """
        if self._process.stdin is None or self._process.poll() is not None:
            raise ClientError("the client has ended")
        line = json.dumps([command, arguments]) + "\n"
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        answer = json.loads(self._line(command, time.monotonic() + deadline_s, deadline_s))
        if "error" in answer:
            raise ClientError(answer["error"], answer.get("errno", 0))
        result: object = answer["ok"]
        return result

    def time(self, command: str, **arguments: object) -> Timing:
        """Have one command run that measures itself."""
        return msgspec.convert(self.ask(command, deadline_s=DEADLINE_S, **arguments), Timing)

    def _line(self, command: str, deadline: float, allowed_s: float) -> bytes:
        assert self._process.stdout is not None  # it was made with a pipe
        fd = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._kill()
                    raise ClientTimedOutError(f"{command} was not back after {allowed_s:.0f} s")
                data = os.read(fd, 1 << 16)
                if not data:
                    raise ClientError(f"the client died during {command}")
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _kill(self) -> None:
        """Kill the client and its children: it leads a process group of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process: its input ends, and it is killed where that does not suffice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            # In a system call on a dead mount it may outlive even that until the mount is aborted.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_DEADLINE_S)


@contextlib.contextmanager
def client(module: str = CLIENT_MODULE) -> Iterator[ClientProcess]:
    """A client process for the length of the block."""
    process = ClientProcess(module)
    try:
        yield process
    finally:
        process.close()
