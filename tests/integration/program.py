"""A tree that a program mounts, for tests: sends its source, and code to run beside the mount."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from typing import Any, Final

from tests.support._forked import ForkedProcess, fork_program
from tests.support._kernel import abort, detach, find_mount, stacks
from tests.support._user import CHECKOUT

_PROCESS: Final = "tests.integration.program_process"
DEADLINE_S: Final = 30.0


class Program:
    """A process that mounts the ``tree`` of `source` (``program_process.py``).

    Replaces a `Daemon` for a `Client`. `end` unmounts and requires status 0.
    """

    user = None

    def __init__(self, source: str, mountpoint: str, log: str, *, limit: int | None = None) -> None:
        """`limit` bounds the descriptors of the process."""
        self.mountpoint = os.path.realpath(mountpoint)
        self._log_path = log
        self._received = b""
        given, commands = os.pipe()
        answers, taken = os.pipe()
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb", buffering=0)
        with open(log, "wb") as file:
            self.process = _started(mountpoint, (given, taken, file.fileno()), limit)
        os.close(given)
        os.close(taken)
        try:
            assert self.run(source) == "mounted"
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def run(self, body: str, timeout: float = DEADLINE_S) -> Any:
        """Run the body of an async function in the program and return its result."""
        self._commands.write(json.dumps(body).encode() + b"\n")
        kind, value = ast.literal_eval(self._line(time.monotonic() + timeout))
        assert kind == "value", value
        return value

    def statistics(self) -> Any:
        """The mount's counts so far."""
        return self.run("return served.statistics()")

    def path(self, *names: str) -> str:
        """The path of a file in the mount."""
        return os.path.join(self.mountpoint, *names)

    def log(self) -> str:
        """The program's log so far."""
        with open(self._log_path, errors="replace") as file:
            return file.read()

    def end(self) -> None:
        """Unmount, and require success."""
        if (self.process.poll() or 0) < 0:
            return  # it was killed, and the test has failed
        self._commands.close()
        try:
            status = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            dump = stacks(self.pid)
            self.kill()
            raise AssertionError(f"the program did not end:\n{dump}\n{self.log()}") from None
        left = find_mount(self.mountpoint)
        if left is not None:
            self.kill()
        self._answers.close()
        assert (status, left) == (0, None), self.log()

    def kill(self) -> None:
        """End it by force and remove its mount."""
        mount = find_mount(self.mountpoint)
        if mount is not None:
            abort(mount)
        self._commands.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if find_mount(self.mountpoint) is not None:
            detach(self.mountpoint)
        self._answers.close()

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self._answers], [], [], max(left, 0))
            part = os.read(self._answers.fileno(), 1 << 20) if readable else b""
            if not part:
                dump = stacks(self.pid) if readable == [] else ""
                raise AssertionError(f"no answer from the program\n{dump}\n{self.log()}")
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()


def _started(
    mountpoint: str, standard: tuple[int, int, int], limit: int | None
) -> ForkedProcess | subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": CHECKOUT}
    if limit is None:
        return fork_program(
            _PROCESS, [mountpoint], standard=standard, environment=environment, directory=CHECKOUT
        )
    argv = [sys.executable, "-X", "faulthandler", "-m", _PROCESS, mountpoint]
    return subprocess.Popen(
        ["prlimit", f"--nofile={limit}:{limit}", *argv],
        stdin=standard[0],
        stdout=standard[1],
        stderr=standard[2],
        cwd=CHECKOUT,
        env=environment,
        start_new_session=True,
    )
