"""``zcfuse trace``: show each request that a mount answers."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO, Final

import click

from zcfuse.admin.status import Request, StatusError, ask, find_mount
from zcfuse.admin.trace import POLL_S, TraceReply
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.linux import MountEntry

_USES: Final = ["OPEN", "READ"]


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=_completion.files, help="Write to a file."
)
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End after so many seconds. [default: at Ctrl-C, or with the mount]",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "json", "files"]),
    default="text",
    show_default=True,
    help="A line of text or of JSON for each request; or the paths of the files that were opened"
    " or read, each once, in the order of their first use, for 'zcfuse warm --from'.",
)
def trace(mountpoint: str, output: str | None, seconds: float | None, shape: str) -> None:
    """Show each request that the mount at MOUNTPOINT answers.

    A line has time, thread, user, operation, serving path, bytes, latency in microseconds and path.
    The kernel answers some things without a request: cached names and pages, and the reads of a
    passthrough file. Of such a file a trace has the open, with the size of the file. At the end,
    standard error says how many events there were, and how many were lost.
    """
    try:
        entry = find_mount(mountpoint)
        with _opened(output) as file:
            _run(entry, file, seconds, shape)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    except BrokenPipeError:
        # The reader of the pipe has gone; a later flush must not fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        return
    try:
        file = open(output, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}", usage=True) from error
    with file:
        yield file


def _run(entry: MountEntry, file: BinaryIO, seconds: float | None, shape: str) -> None:
    reader = f"trace {os.getpid()}"
    printer = _Printer(entry, file, shape)
    end = None if seconds is None else time.monotonic() + seconds
    try:
        while end is None or time.monotonic() < end:
            printer.show(_drained(entry, Request("trace", reader=reader)))
            time.sleep(POLL_S if end is None else max(0, min(POLL_S, end - time.monotonic())))
    except KeyboardInterrupt:
        pass  # the usual way to end it: the last events follow
    except StatusError:
        if not printer.began:
            raise
        printer.tell("the mount has ended")
        return
    with contextlib.suppress(StatusError):  # the mount may have ended now
        printer.show(_drained(entry, Request("untrace", reader=reader)))
    printer.tell()


def _drained(entry: MountEntry, request: Request) -> TraceReply:
    reply = ask(entry, request)
    if not isinstance(reply, TraceReply):
        raise StatusError(f"{entry.mountpoint}: unexpected answer {reply!r:.80}")
    return reply


class _Printer:
    """Writes events to a file in one shape, and counts them."""

    def __init__(self, entry: MountEntry, file: BinaryIO, shape: str) -> None:
        self.began = False
        self._entry = entry
        self._file = file
        self._shape = shape
        self._seen: set[bytes] = set()
        self._events = 0
        self._lost = 0
        self._unnamed = 0

    def show(self, reply: TraceReply) -> None:
        """Write what a reply has."""
        self.began = True
        self._lost += reply.lost
        if self._shape == "files":
            lines, events = self._used(reply)
        else:
            lines, events = reply.lines(json=self._shape == "json")
        self._events += events
        self._file.write(lines)
        self._file.flush()

    def tell(self, why: str = "") -> None:
        """Say on standard error how much it was."""
        said = [f"{self._events:,} events", f"{self._lost:,} lost"]
        if self._unnamed:
            said.append(f"{self._unnamed:,} of files without a path left out")
        click.echo(f"zcfuse trace: {', '.join([*said, *filter(None, [why])])}", err=True)

    def _used(self, reply: TraceReply) -> tuple[bytes, int]:
        """Return a line for each file that no reply before has named, and the number of events."""
        files, unnamed, events = reply.files(_USES)
        self._unnamed += unnamed
        lines = []
        for path in files:
            if path in self._seen:
                continue
            self._seen.add(path)
            if b"\n" in path:
                self._unnamed += 1
            else:
                lines.append(os.path.join(os.fsencode(self._entry.mountpoint), path) + b"\n")
        return b"".join(lines), events
