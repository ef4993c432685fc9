"""Starts ``zcfuse``, or a program that mounts a tree, without the imports: most of a start.

`fork_zcfuse` and `fork_program` ask a fork server (``_fork_server.py``) to fork and to run the
command line, or the program, in the child. Each process of a run has one server for either. Modules
read the environment of the server when they load, so a daemon with other variables
(``ZCFUSE_FAULTS``), under a wrapper or as another user needs a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

_SERVER: Final = os.path.join(os.path.dirname(os.path.realpath(__file__)), "_fork_server.py")
_MOST_BYTES: Final = 100
_COMMAND: Final = "zcfuse.cli"
_FOR_COMMAND: Final = (
    "pyfuse3",
    "zcfuse.cli.mount._command",
    "zcfuse.control._daemon",
    "zcfuse.control._mount",
    "zcfuse.control._served",
    "zcfuse.datapath",
    "zcfuse.fuse",
    "zcfuse.tree",
)


def fork_zcfuse(
    arguments: Sequence[str], *, output: int, environment: Mapping[str, str], directory: str
) -> ForkedProcess:
    """Run ``zcfuse ARGUMENTS`` in a new session; `output` takes its standard output and error."""
    server = _server(environment["PYTHONPATH"], *_FOR_COMMAND)
    with open(os.devnull, "rb") as nothing:
        standard = nothing.fileno(), output, output
        return server.start(_COMMAND, arguments, standard, environment, directory)


def fork_program(
    module: str,
    arguments: Sequence[str],
    *,
    standard: tuple[int, int, int],
    environment: Mapping[str, str],
    directory: str,
) -> ForkedProcess:
    """Call ``main`` of a module in a new session, with these standard input, output and error."""
    server = _server(environment["PYTHONPATH"], module)
    return server.start(module, arguments, standard, environment, directory)


def run_forked(
    arguments: Sequence[str], *, environment: Mapping[str, str], directory: str, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run ``zcfuse ARGUMENTS`` to its end, and until its output is closed, as subprocess.run does.

    Raises:
        subprocess.TimeoutExpired: after `timeout` seconds; the process is killed.
    """
    end = time.monotonic() + timeout
    output, errors = os.pipe(), os.pipe()
    try:
        server = _server(environment["PYTHONPATH"], *_FOR_COMMAND)
        with open(os.devnull, "rb") as nothing:
            standard = nothing.fileno(), output[1], errors[1]
            process = server.start(_COMMAND, arguments, standard, environment, directory)
    finally:
        os.close(output[1])
        os.close(errors[1])
    try:
        texts = _read_to_end((output[0], errors[0]), end)
        process.wait(max(end - time.monotonic(), 0))
    except (TimeoutError, subprocess.TimeoutExpired):
        process.kill()
        process.wait()
        raise subprocess.TimeoutExpired(["zcfuse", *arguments], timeout) from None
    return subprocess.CompletedProcess(["zcfuse", *arguments], process.wait(), *texts)


class ForkedProcess:
    """A child of the fork server, with some methods of `subprocess.Popen`."""

    def __init__(self, server: _Server, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._server = server
        self._ended = os.pidfd_open(pid)  # the server reaps it later, so the number is still valid

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("zcfuse", timeout or 0)
            self.returncode = self._server.reap(self.pid)
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._ended, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Server:
    def __init__(self, path: str, modules: Sequence[str]) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", _SERVER, str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": path},
            )

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        standard: tuple[int, int, int],
        environment: Mapping[str, str],
        directory: str,
    ) -> ForkedProcess:
        request = {
            "module": module,
            "arguments": arguments,
            "environment": environment,
            "directory": directory,
        }
        return ForkedProcess(self, self._asked(request, standard))

    def reap(self, pid: int) -> int:
        """Return the exit status of a process that has ended."""
        return self._asked({"reap": pid})

    def end(self) -> None:
        self._socket.close()
        self._process.wait()

    def _asked(self, request: Mapping[str, object], descriptors: Sequence[int] = ()) -> int:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer = self._socket.recv(_MOST_BYTES)
        assert answer, "the fork server has ended"
        return int(answer)


def _read_to_end(descriptors: Sequence[int], end: float) -> list[str]:
    """Read pipes until all writers have closed them, and close them."""
    read = {descriptor: bytearray() for descriptor in descriptors}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(end - time.monotonic(), 0))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if data := os.read(key.fd, 1 << 16):
                    read[key.fd] += data
                else:
                    selector.unregister(key.fd)
    return [bytes(text).decode(errors="surrogateescape") for text in read.values()]


@functools.cache
def _server(path: str, *modules: str) -> _Server:
    server = _Server(path, modules)
    atexit.register(server.end)
    return server
