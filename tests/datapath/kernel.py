"""The kernel's side of the protocol, played over a socket pair: no mount, no privilege."""

import errno
import os
import socket
import struct
from dataclasses import dataclass

from zcfuse.datapath import Config, DataPath, Statistics

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, INIT = 1, 2, 3, 14, 15, 18, 26
INTERRUPT, READDIRPLUS, LSEEK = 36, 44, 46
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTR = struct.Struct("=6Q10I")
MESSAGE_BYTES = 1 << 21
WAIT_S = 10.0


@dataclass(frozen=True)
class Reply:
    """A reply as the kernel gets it; error is 0 or a positive errno."""

    error: int
    unique: int
    body: bytes

    @property
    def errorname(self) -> str:
        return errno.errorcode.get(self.error, "OK")


class FakeKernel:
    """A data path whose channel and upcall socket both end in the test."""

    def __init__(self, **settings: object) -> None:
        self.channel, ours = self._pair()
        self.control, theirs = self._pair()
        config = Config()
        config.threads = 2
        config.lock_budget = 16 << 20
        for name, value in settings.items():
            setattr(config, name, value)
        self.path = DataPath(ours.detach(), theirs.detach(), config, device=False)
        self.path.start()
        self._unique = 0

    @staticmethod
    def _pair() -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ends[0].settimeout(WAIT_S)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
        return ends

    def send(self, opcode: int, nodeid: int, body: bytes = b"", unique: int | None = None) -> int:
        if unique is None:
            self._unique += 2
            unique = self._unique
        header = IN_HEADER.pack(
            IN_HEADER.size + len(body), opcode, unique, nodeid, 0, 0, os.getpid(), 0, 0
        )
        self.channel.sendall(header + body)
        return unique

    def reply(self) -> Reply:
        return self._parse(self.channel.recv(MESSAGE_BYTES))

    @staticmethod
    def _parse(message: bytes) -> Reply:
        length, error, unique = OUT_HEADER.unpack_from(message)
        assert length == len(message)
        return Reply(-error, unique, message[OUT_HEADER.size :])

    def read(self, nodeid: int, offset: int, size: int) -> Reply:
        """One READ, and its reply."""
        self.send(READ, nodeid, struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0))
        return self.reply()

    def upcall(self) -> tuple[int, int, int, bytes]:
        """(opcode, unique, nodeid, body) of the next request that control gets."""
        message = self.control.recv(MESSAGE_BYTES)
        _, opcode, unique, nodeid, *_ = IN_HEADER.unpack_from(message)
        return opcode, unique, nodeid, message[IN_HEADER.size :]

    def ask(self, opcode: int, nodeid: int, body: bytes = b"") -> int:
        """Send a request and see it arrive at control; returns its number."""
        unique = self.send(opcode, nodeid, body)
        assert self.upcall() == (opcode, unique, nodeid, body)
        return unique

    def answer(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        """What control replies to an upcall."""
        self.control.sendall(OUT_HEADER.pack(OUT_HEADER.size + len(body), -error, unique) + body)

    def statistics(self) -> Statistics:
        return Statistics.of(self.path)

    def close(self) -> None:
        self.path.stop()
        self.channel.close()
        self.control.close()
