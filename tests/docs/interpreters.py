"""Shells and Python interpreters that live as long as a page, so that its blocks share state.

Each is a child process. It reads names of scripts from standard input, runs each in itself and
reports how it ended. If a script hangs, the child is killed.
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

_END_S: Final = 10.0
_BASH: Final = """
while IFS= read -r _script; do
    _status=0
    trap '_status=$?' ERR
    . "$_script" </dev/null
    trap - ERR
    printf '\\n%s %d\\n' "$0" "$_status"
done
"""
# Blocks may await; then trio runs them.
_PYTHON: Final = """
import ast, inspect, os, sys, traceback, types
sys.path.insert(0, os.environ["CHECKOUT"])
names = {"__name__": "page"}
for script in map(str.strip, iter(sys.stdin.readline, "")):
    status = 0
    try:
        with open(script) as file:
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(file.read(), script, "exec", flags, dont_inherit=True)
        if code.co_flags & inspect.CO_COROUTINE:
            import trio
            trio.run(types.FunctionType(code, names))
        else:
            exec(code, names)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    print(f"\\n{sys.argv[1]} {status}", flush=True)
"""

# A shell that reads no user files, and the interpreter of the tests.
_COMMANDS: Final = {
    "bash": ["bash", "--noprofile", "--norc", "-c", _BASH],
    "python": [sys.executable, "-c", _PYTHON],
}


class HungError(AssertionError):
    """A script was late; the interpreter was killed."""


class Interpreter:
    """Runs scripts in one process, which leads a new session."""

    def __init__(
        self, language: str, cwd: str, env: Mapping[str, str], enter: Sequence[str] = ()
    ) -> None:
        """Start ``bash`` or ``python`` through the command `enter`."""
        token = secrets.token_hex(8)
        self._token = token.encode()
        self._read = b""
        self._process = subprocess.Popen(
            [*enter, *_COMMANDS[language], token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )

    def run(self, script: str, seconds: float) -> tuple[int, str]:
        """Run a file; return the status of its last failed command and its output.

        Raises:
            HungError: it did not end within `seconds`, or ended the interpreter.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(os.fsencode(script) + b"\n")
        self._process.stdin.flush()
        end = b"\n" + self._token + b" "
        deadline = time.monotonic() + seconds
        while end not in self._read or not self._read.endswith(b"\n"):
            self._read += self._more(deadline)
        output, _, status = self._read.partition(end)
        self._read = b""
        return int(status), output.decode(errors="replace")

    def _more(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        left = max(0.0, deadline - time.monotonic())
        more = b""
        if select.select([descriptor], [], [], left)[0]:
            more = os.read(descriptor, 1 << 16)
        if not more:
            self.close()
            said = self._read.decode(errors="replace")
            raise HungError(f"it hung, or ended the shell; until then it wrote:\n{said}")
        return more

    def close(self) -> None:
        """End the process and its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        self._process.wait(_END_S)
