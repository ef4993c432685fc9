"""The sinks: the receiver's process, and a directory for a file.

Owns the receiver. If the receiver dies, every transfer to a socket fails with the errno of its
connection.
"""

import contextlib
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientError
from zcfuse.bench._daemons import child_environment

_START_DEADLINE_S: Final = 30.0
_END_DEADLINE_S: Final = 5.0


class _Addresses(msgspec.Struct, frozen=True):
    tcp: int
    unix: str


class Sinks(msgspec.Struct, frozen=True):
    """The addresses for a client: a port, an abstract name, and a directory."""

    tcp: int
    unix: str
    directory: str


@contextlib.contextmanager
def sinks(source: str) -> Iterator[Sinks]:
    """Run a receiver during the block; files go to the filesystem of `source`."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "zcfuse.bench.transfer._receiver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=child_environment(),
    )
    try:
        addresses = _addresses(process)
        yield Sinks(addresses.tcp, addresses.unix, directory_beside(source))
    finally:
        _end(process)


def _addresses(process: subprocess.Popen[bytes]) -> _Addresses:
    assert process.stdout is not None  # created with a pipe
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if selector.select(_START_DEADLINE_S) else b""
    if not line:
        raise ClientError("the receiver of the sockets did not start")
    return msgspec.json.decode(line, type=_Addresses)


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_END_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_DEADLINE_S)


def directory_beside(source: str) -> str:
    """A directory on the filesystem of `source` for an unnamed file.

    It is a temporary directory if that is on the same filesystem, otherwise the one of `source`: an
    unnamed file (O_TMPFILE) appears in no directory and ends with its descriptor.
    """
    device = os.stat(source).st_dev
    for candidate in (tempfile.gettempdir(), "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            if os.stat(candidate).st_dev == device and os.access(candidate, os.W_OK):
                return candidate
    return os.path.dirname(os.path.realpath(source))
