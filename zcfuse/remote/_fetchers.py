"""The worker processes of a mount, and the answers that they owe.

Any thread may ask. A thread for each process reads its answers. A process that dies is replaced,
and its requests are sent again, since a request may be repeated.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeAlias, TypeVar

import trio

from zcfuse.remote._messages import Failed, Reply, Request, Setup, encode, receive

log = logging.getLogger("zcfuse.remote")

_COMMAND: Final = "from zcfuse.remote._worker import main; main({})"
PROCESSES: Final = 2
_MOST_SENDS: Final = 4
_END_S: Final = 2.0
_LOG_EVERY_S: Final = 60.0
# After a failure to reach the server, requests make one attempt each for so long.
_OFFLINE_S: Final = 5.0

_R = TypeVar("_R")
Answer: TypeAlias = "Future[Reply]"


class RemoteError(OSError):
    """A request failed; `unreachable` if the server did not answer."""

    def __init__(self, number: int, text: str, *, unreachable: bool) -> None:
        super().__init__(number, text)
        self.unreachable = unreachable


class _Owed:
    __slots__ = ("answer", "request", "sends")

    def __init__(self, request: Request, answer: Answer) -> None:
        self.request = request
        self.answer = answer
        self.sends = 0


class _Process:
    """One running worker, and the requests that it has. Owns the process and the socket."""

    def __init__(self, setup: Setup) -> None:
        self.owed: dict[int, _Owed] = {}
        self.channel, theirs = socket.socketpair()
        with theirs:
            # -P: the current directory must not provide modules.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self.channel.sendall(encode(setup))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def end(self, wait: float = 0.0) -> None:
        """Close the socket, which ends the process, and reap it; kill it after `wait` seconds."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.channel.close()


class Fetchers:
    """Sends requests to worker processes, which start with the first request."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._lock = threading.Lock()
        self._processes: list[_Process] = []
        self._numbers = itertools.count(1)
        self._closed = False
        self._offline_until = 0.0
        self._logged = -_LOG_EVERY_S
        self.restarts = 0

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        with self._lock:
            return [process.pid for process in self._processes]

    @property
    def is_offline(self) -> bool:
        """Whether the server was unreachable a moment ago."""
        return time.monotonic() < self._offline_until

    def ask(self, make: Callable[[int], Request]) -> Answer:
        """Send the request that `make` returns for a number; return the answer to come."""
        request = make(next(self._numbers))
        owed = _Owed(request, Future())
        with self._lock:
            if not self._closed and not self._processes:
                for _ in range(PROCESSES):
                    self._start()
            self._send(owed)
        return owed.answer

    def close(self) -> None:
        """End the processes; requests without an answer fail. A second call does nothing."""
        with self._lock:
            self._closed = True
            processes, self._processes = self._processes, []
        for process in processes:
            process.end(_END_S)

    def _start(self) -> None:
        process = _Process(self._setup)
        self._processes.append(process)
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _send(self, owed: _Owed) -> None:
        """Hand a request to the process with the fewest; the caller holds the lock."""
        owed.sends += 1
        if self._closed or owed.sends > _MOST_SENDS:
            text = "the mount ends" if self._closed else "worker processes end again and again"
            owed.answer.set_exception(RemoteError(errno.EIO, text, unreachable=False))
            return
        process = min(self._processes, key=lambda one: len(one.owed))
        process.owed[owed.request.number] = owed
        # If it is dead, its reader sends the request again.
        with contextlib.suppress(OSError):
            process.channel.sendall(encode(owed.request))

    def _read(self, process: _Process) -> None:
        while (reply := receive(process.channel, Reply)) is not None:  # type: ignore[arg-type]
            with self._lock:
                owed = process.owed.pop(reply.number, None)
            if owed is not None:
                self._settle(owed, reply)
        self._replace(process)

    def _settle(self, owed: _Owed, reply: Reply) -> None:
        if not isinstance(reply, Failed):
            if getattr(reply, "fetched_bytes", 1):
                self._offline_until = 0.0
            owed.answer.set_result(reply)
            return
        if reply.unreachable:
            self._offline_until = time.monotonic() + _OFFLINE_S
        self._log(f"{type(owed.request).__name__} failed: {reply.text}")
        error = RemoteError(reply.errno, reply.text, unreachable=reply.unreachable)
        owed.answer.set_exception(error)

    def _replace(self, process: _Process) -> None:
        with self._lock:
            closed = self._closed
            if process in self._processes:
                self._processes.remove(process)
            if not closed:
                self.restarts += 1
                self._start()
            owed, process.owed = list(process.owed.values()), {}
            for one in owed:
                self._send(one)
        if not closed:
            self._log(f"worker process {process.pid} ended, and another takes its requests")
            process.end()

    def _log(self, text: str) -> None:
        """Log at most one line in a while, since an unreachable server fails every request."""
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            log.warning("%s (similar failures are not logged for a minute)", text)


async def awaited(answer: Answer, seconds: float) -> Reply:
    """Return an answer in a trio task. Raises OSError: EIO after `seconds`, or its failure."""
    if not answer.done():
        arrived = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_: object) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(arrived.set)

        answer.add_done_callback(tell)
        with trio.move_on_after(seconds):
            await arrived.wait()
    if not answer.done():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return answer.result()


def waited(answer: Answer, seconds: float) -> Reply:
    """Return an answer in any thread that may block; raises as `awaited` does."""
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
