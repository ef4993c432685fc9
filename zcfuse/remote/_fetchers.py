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
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeAlias, TypeVar

import trio

from zcfuse.remote._messages import Cancel, Failed, Part, Reply, Request, Setup, encode, receive

log = logging.getLogger("zcfuse.remote")

_COMMAND: Final = "from zcfuse.remote._worker import main; main({})"
PROCESSES: Final = 2
_MOST_SENDS: Final = 4
_END_S: Final = 2.0
_LONGEST_LINE: Final = 1000
_ERROR_KIND: Final = re.compile(rb"[A-Za-z_.]+")
_LOG_EVERY_S: Final = 60.0
# After a failure to reach the server, requests make one attempt each for so long.
_OFFLINE_S: Final = 5.0

_P = TypeVar("_P", bound=Part)
Answer: TypeAlias = "Future[Reply]"


class RemoteError(OSError):
    """A request failed; `unreachable` if the server did not answer."""

    def __init__(self, number: int, text: str, *, unreachable: bool) -> None:
        super().__init__(number, text)
        self.unreachable = unreachable


class Parts(Generic[_P]):
    """The messages before an answer that have come so far. A thread of `Fetchers` adds them.

    `next` is done once another part or the answer has come; then there is a new one. A worker that
    takes over a request begins again, so parts may come twice. `see` gets each part at once, in
    the thread that adds it, and returns what `take` will.
    """

    def __init__(self, see: Callable[[_P], _P] | None = None) -> None:
        self._lock = threading.Lock()
        self._came: list[_P] = []
        self._see = see
        self.next: Answer = Future()

    def take(self) -> list[_P]:
        """Return the parts that came since the last call."""
        with self._lock:
            came, self._came = self._came, []
            return came

    def add(self, part: _P) -> None:
        """Note a part."""
        if self._see is not None:
            part = self._see(part)
        with self._lock:
            self._came.append(part)
            arrived, self.next = self.next, Future()
        arrived.set_result(part)

    def end(self, answer: Answer) -> None:
        """Note that the answer is there."""
        error = answer.exception()
        if error is not None:
            self.next.set_exception(error)
        else:
            self.next.set_result(answer.result())


class _Owed:
    __slots__ = ("answer", "parts", "request", "sends")

    # Any: a request has one kind of parts, which its caller knows.
    def __init__(self, request: Request, answer: Answer, parts: Parts[Any] | None) -> None:
        self.request = request
        self.answer = answer
        self.parts = parts
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
                # Not the daemon's: who waits for the end of that must not wait for this process.
                stderr=subprocess.PIPE,
            )
        self._last_line = b""
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self.channel.sendall(encode(setup))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def cause(self) -> str:
        """Return the kind of error that a process died of, "" if it wrote none.

        The rest of a traceback stays unseen, because it may show credentials.
        """
        self._reader.join(_END_S)
        found = _ERROR_KIND.match(self._last_line)
        return found[0].decode() if found else ""

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            while line := lines.readline(_LONGEST_LINE):
                self._last_line = line

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

    def ask(self, make: Callable[[int], Request], parts: Parts[_P] | None = None) -> Answer:
        """Send the request that `make` returns for a number; return the answer to come.

        `parts` gets the messages that come before it; they are lost without.
        """
        request = make(next(self._numbers))
        owed = _Owed(request, Future(), parts)
        if parts is not None:
            owed.answer.add_done_callback(parts.end)
        with self._lock:
            if not self._closed and not self._processes:
                for _ in range(PROCESSES):
                    self._start()
            self._send(owed)
        return owed.answer

    def cancel(self, answers: Collection[Answer]) -> None:
        """Have workers do nothing more for requests; their answers become failures, or come."""
        with self._lock:
            for process in self._processes:
                for number, owed in process.owed.items():
                    if owed.answer in answers:
                        with contextlib.suppress(OSError):
                            process.channel.sendall(encode(Cancel(number)))

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
                take = process.owed.get if isinstance(reply, Part) else process.owed.pop
                owed = take(reply.number, None)
            if owed is None:
                continue
            if not isinstance(reply, Part):
                self._settle(owed, reply)
            elif owed.parts is not None:
                owed.parts.add(reply)
        self._replace(process)

    def _settle(self, owed: _Owed, reply: Reply) -> None:
        if not isinstance(reply, Failed):
            if getattr(reply, "fetched_bytes", 1):
                self._offline_until = 0.0
            owed.answer.set_result(reply)
            return
        if reply.errno == errno.ECANCELED:
            owed.answer.set_exception(RemoteError(reply.errno, reply.text, unreachable=False))
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
            process.end()
            cause = f" ({cause})" if (cause := process.cause()) else ""
            self._log(f"worker process {process.pid} ended{cause}, and another takes its requests")

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
