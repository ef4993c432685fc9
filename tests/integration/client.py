"""The tests' side of a client process: sends source, receives a value or an errno, with a bound."""

from __future__ import annotations

import ast
import contextlib
import os
import select
import subprocess
import sys
import time
from typing import Any, Final

from tests.integration.program import Program
from tests.support import ClientHungError, Daemon
from tests.support._kernel import stacks

DEADLINE_S: Final = 20.0
_DIRECTORY: Final = os.path.dirname(os.path.realpath(__file__))
# An import, unlike a script, is compiled once for all clients.
_PROGRAM: Final = f"""
import sys
sys.path.insert(0, {_DIRECTORY!r})
import client_process
client_process.main(sys.argv[1], int(sys.argv[2]))
"""


class Client:
    """A process below `root`, a mount's directory or a plain one (``client_process.py``).

    `daemon` is the mount's; if the client hangs, it is killed too. `uid` is the client's user.
    ``close`` kills the client.
    """

    def __init__(
        self, root: str, daemon: Daemon | Program | None = None, *, uid: int | None = None
    ) -> None:
        self._daemon = daemon
        user = daemon.user if daemon is not None else None
        if uid is None:
            uid = os.getuid() if user is None else user.uid
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, root, str(uid)]
        self.process = subprocess.Popen(
            argv if user is None else user.command(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._received = b""

    def begin(self, source: str) -> None:
        """Send source without waiting for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(ascii(source).encode() + b"\n")

    def finish(self, timeout: float = DEADLINE_S) -> tuple[str, Any]:
        """Wait for the answer to `begin`: ("value", ...), ("errno", name) or ("error", traceback).

        Raises:
            ClientHungError: no answer arrived in time.
            AssertionError: the client died.
        """
        kind, value = ast.literal_eval(self._line(time.monotonic() + timeout))
        return kind, value

    def outcome(self, source: str, timeout: float = DEADLINE_S) -> Any:
        """Run source and return its value, or the name of its errno."""
        self.begin(source)
        kind, value = self.finish(timeout)
        assert kind != "error", value
        return value

    def value(self, source: str, timeout: float = DEADLINE_S) -> Any:
        """Run source that must succeed, and return its value."""
        self.begin(source)
        kind, value = self.finish(timeout)
        assert kind == "value", f"{source} failed with {value}"
        return value

    def close(self) -> None:
        """Kill the process; if it does not end, kill its daemon too."""
        self.process.kill()
        try:
            self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._hung("was killed and did not end")

    def _line(self, deadline: float) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.process.stdout], [], [], max(left, 0))
            if not readable:
                self._hung("did not answer")
            part = os.read(self.process.stdout.fileno(), 1 << 20)
            assert part, f"the client ended with {self.process.wait(DEADLINE_S)}"
            self._received += part
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def _hung(self, what: str) -> None:
        dump = f"client:\n{stacks(self.process.pid)}"
        if self._daemon is not None:
            dump += f"\ndaemon:\n{stacks(self._daemon.pid)}"
            with contextlib.suppress(AssertionError):
                self._daemon.kill()
            dump += f"\nthe daemon wrote:\n{self._daemon.log()}"
        self.process.kill()
        raise ClientHungError(f"the client {what}\n{dump}")


class Pair:
    """A client of the mount and one of the backing directory, for the same questions."""

    def __init__(self, mount: Client, native: Client) -> None:
        self.mount = mount
        self.native = native

    def same(self, source: str, timeout: float = DEADLINE_S) -> Any:
        """Ask both, require the same value or errno, and return it."""
        self.mount.begin(source)
        self.native.begin(source)
        expected = self.native.finish(timeout)
        found = self.mount.finish(timeout)
        assert found == expected, source
        assert expected[0] != "error", expected[1]
        return expected[1]

    def differ(self, source: str) -> bool:
        """Whether the two give different answers now."""
        return bool(self.mount.outcome(source) != self.native.outcome(source))
