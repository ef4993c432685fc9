"""The parent's end of a client process: sends a command and waits for the answer with a bound.

Owns the child. If a client is late, this module kills it and raises `ClientTimedOutError`. The
caller aborts the mount that the client hung on (`running` does so if the daemon does not end).
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
    """The client's work failed; the message is its error, `errno` its number if known."""

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class ClientTimedOutError(ClientError):
    """The client did not answer in time and was killed."""


class Timing(msgspec.Struct, frozen=True):
    """The duration and size of one piece of work."""

    ns: int
    operations: int
    bytes: int

    @property
    def gb_per_s(self) -> float:
        """Throughput in GB (10^9 bytes) per second."""
        return self.bytes / self.ns if self.ns else 0.0

    @property
    def us_per_operation(self) -> float:
        """Microseconds per operation."""
        return self.ns / 1000 / self.operations if self.operations else 0.0


class ClientProcess:
    """A client process that runs `module`; `client()` ends it too."""

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
        """Run one command in the client and return its result.

        Raises `ClientError` if it failed or the client died, `ClientTimedOutError` after
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
        """Run one command that measures itself."""
        return msgspec.convert(self.ask(command, deadline_s=DEADLINE_S, **arguments), Timing)

    def _line(self, command: str, deadline: float, allowed_s: float) -> bytes:
        assert self._process.stdout is not None  # created with a pipe
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
        """Kill the client and its children, which form one process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process: close its input, and kill it if that does not suffice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._kill()
            # In a system call on a dead mount it may survive SIGKILL until the mount is aborted.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_DEADLINE_S)


@contextlib.contextmanager
def client(module: str = CLIENT_MODULE) -> Iterator[ClientProcess]:
    """Run a client process during the block."""
    process = ClientProcess(module)
    try:
        yield process
    finally:
        process.close()
