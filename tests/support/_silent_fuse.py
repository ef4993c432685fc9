"""A FUSE filesystem that stops to answer, as a child process: ``python -m`` runs it.

It has one file, ``file``, and answers lookups, attributes and opens until its standard input says
"silence". From then on it takes requests and answers none (``swallow``), or takes none (``deaf``).
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import subprocess
import sys
from types import TracebackType
from typing import Final

from tests.support._kernel import MNT_DETACH
from tests.support._user import CHECKOUT

SWALLOW: Final = "swallow"
DEAF: Final = "deaf"

_READY: Final = b"mounted\n"
_IN: Final = struct.Struct("=IIQQIIIHH")
_OUT: Final = struct.Struct("=IiQ")
_LOOKUP, _FORGET, _GETATTR, _OPEN, _STATFS = 1, 2, 3, 14, 17
_INIT, _OPENDIR, _BATCH_FORGET = 26, 27, 42
_ENOENT, _ENOSYS = -2, -38
_ROOT, _FILE = 1, 2
_SIZE: Final = 10
# No time for which answers hold: each look asks again.
_ENTRY: Final = struct.pack("=QQQQII", _FILE, 0, 0, 0, 0, 0)


class SilentFilesystem:
    """The filesystem as a context; mounts at `mountpoint`. `mode` is SWALLOW or DEAF."""

    def __init__(self, mountpoint: str, mode: str) -> None:
        self._mountpoint = mountpoint
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, mountpoint, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
        )

    def __enter__(self) -> SilentFilesystem:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            self.end()
            raise AssertionError("the silent filesystem did not mount")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def silence(self) -> None:
        """Answer nothing from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"silence\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == b"silent\n"

    def end(self) -> None:
        """End the server, and with it every wait for its answers; a second call does nothing."""
        self._process.kill()
        self._process.wait(10)
        ctypes.CDLL(None).umount2(os.fsencode(self._mountpoint), MNT_DETACH)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _attributes(node: int) -> bytes:
    mode = 0o40755 if node == _ROOT else 0o100644
    size = 0 if node == _ROOT else _SIZE
    times = (0, 0, 0, 0, 0, 0)
    return struct.pack("=QQQQQQIIIIIIIIII", node, size, 1, *times[:3], *times[3:], mode, 1, 0, 0,
                       0, 4096, 0)  # fmt: skip


def _answer(opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
    if opcode == _INIT:
        major, minor, readahead = struct.unpack_from("=III", body)
        return 0, struct.pack("=IIIIHHIIHHI28x", major, min(minor, 31), readahead, 0, 12, 9, 4096,
                              1, 0, 0, 0)  # fmt: skip
    if opcode == _LOOKUP:
        return (0, _ENTRY + _attributes(_FILE)) if body == b"file\0" else (_ENOENT, b"")
    if opcode == _GETATTR:
        return 0, struct.pack("=QII", 0, 0, 0) + _attributes(node)
    if opcode in (_OPEN, _OPENDIR):
        return 0, struct.pack("=QII", 0, 0, 0)
    if opcode == _STATFS:
        return 0, struct.pack("=QQQQQIII28x", 8, 8, 8, 8, 8, 4096, 255, 4096)
    return _ENOSYS, b""


def _serve(mountpoint: str, mode: str) -> None:
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fd
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"silent", os.fsencode(mountpoint), b"fuse.silent", 6, options) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.write(1, _READY)
    silent = False
    while True:
        watched = [0] if silent and mode == DEAF else [0, fd]
        readable, _, _ = select.select(watched, [], [])
        if 0 in readable:
            if not os.read(0, 100):
                return
            silent = True
            os.write(1, b"silent\n")
            continue
        message = os.read(fd, 1 << 18)
        _, opcode, unique, node, *_ = _IN.unpack_from(message)
        if silent or opcode in (_FORGET, _BATCH_FORGET):
            continue
        error, body = _answer(opcode, node, message[_IN.size :])
        os.write(fd, _OUT.pack(_OUT.size + len(body), error, unique) + body)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
