"""The kernel's side of the protocol, played over a socket pair: no mount, no privilege."""

import errno
import os
import socket
import struct
from dataclasses import dataclass

from tests.support import let_pass
from zcfuse.datapath import Config, DataPath, Statistics

LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, INIT = 1, 2, 3, 14, 15, 18, 26
READLINK, STATFS, GETXATTR, LISTXATTR, FLUSH = 5, 17, 22, 23, 25
OPENDIR, READDIR, RELEASEDIR, ACCESS = 27, 28, 29, 34
IOCTL, POLL = 39, 40
INTERRUPT, BATCH_FORGET, READDIRPLUS, LSEEK, STATX = 36, 42, 44, 46, 52
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTR = struct.Struct("=6Q10I")
ENTRY = struct.Struct("=4QII")
DIRENT = struct.Struct("=QQII")
OPEN_OUT = struct.Struct("=QIi")
ROOT = 1
KEEP_CACHE, CACHE_DIR, NOFLUSH, PASSTHROUGH = 2, 8, 32, 128
MESSAGE_BYTES = 1 << 21
WAIT_S = 10.0


def settle() -> None:
    """Wait until the last write is older than a clock tick."""
    let_pass(0.06)


@dataclass(frozen=True)
class Reply:
    """A reply as the kernel receives it; error is 0 or a positive errno."""

    error: int
    unique: int
    body: bytes

    @property
    def errorname(self) -> str:
        return errno.errorcode.get(self.error, "OK")


@dataclass(frozen=True)
class Entry:
    """The reply to a LOOKUP, or an entry of a READDIRPLUS; nodeid 0: only the name."""

    nodeid: int
    valid_ms: int
    ino: int
    size: int
    mode: int
    nlink: int

    @classmethod
    def of(cls, body: bytes) -> "Entry":
        nodeid, _, valid, _, valid_ns, _ = ENTRY.unpack_from(body)
        ino, size, _, _, _, _, _, _, _, mode, nlink, *_ = ATTR.unpack_from(body, ENTRY.size)
        return cls(nodeid, valid * 1000 + valid_ns // 1_000_000, ino, size, mode, nlink)


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

    def send(
        self,
        opcode: int,
        nodeid: int,
        body: bytes = b"",
        unique: int | None = None,
        uid: int | None = None,
        pid: int | None = None,
    ) -> int:
        """Send a request of a client: this process and its user, unless others are given."""
        if unique is None:
            self._unique += 2
            unique = self._unique
        who = (os.getuid(), os.getgid()) if uid is None else (uid, uid)
        header = IN_HEADER.pack(
            IN_HEADER.size + len(body), opcode, unique, nodeid, *who, pid or os.getpid(), 0, 0
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

    def request(
        self,
        opcode: int,
        nodeid: int,
        body: bytes = b"",
        *,
        uid: int | None = None,
        pid: int | None = None,
    ) -> Reply:
        """A request that the data path answers by itself."""
        unique = self.send(opcode, nodeid, body, uid=uid, pid=pid)
        reply = self.reply()
        assert reply.unique == unique
        return reply

    def look(self, parent: int, name: bytes) -> Entry:
        """A LOOKUP that finds something or a name that is missing."""
        reply = self.request(LOOKUP, parent, name + b"\0")
        assert reply.errorname == "OK"
        return Entry.of(reply.body)

    def walk(self, path: bytes) -> Entry:
        """LOOKUPs from the root on."""
        entry = Entry(ROOT, 0, 0, 0, 0, 0)
        for name in path.split(b"/"):
            entry = self.look(entry.nodeid, name)
        return entry

    def forget(self, nodeid: int, lookups: int = 1) -> None:
        self.send(FORGET, nodeid, struct.pack("=Q", lookups))

    def open(self, nodeid: int, flags: int = os.O_RDONLY, opcode: int = OPEN) -> tuple[int, int]:
        """The (handle, flags) of an OPEN or OPENDIR that succeeds."""
        reply = self.request(opcode, nodeid, struct.pack("=II", flags, 0))
        assert reply.errorname == "OK"
        return OPEN_OUT.unpack(reply.body)[:2]

    def release(self, nodeid: int, handle: int, opcode: int = RELEASE) -> None:
        assert self.request(opcode, nodeid, struct.pack("=QIIQ", handle, 0, 0, 0)).error == 0

    def some(
        self, nodeid: int, handle: int, offset: int, size: int = 4096, opcode: int = READDIRPLUS
    ) -> list[tuple[bytes, int, Entry | None]]:
        """(name, next offset, entry) of one READDIRPLUS or READDIR."""
        body = struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0)
        reply = self.request(opcode, nodeid, body)
        assert reply.errorname == "OK"
        assert len(reply.body) <= size
        found, at = [], 0
        while at < len(reply.body):
            entry = None
            if opcode == READDIRPLUS:
                entry = Entry.of(reply.body[at:])
                at += ENTRY.size + ATTR.size
            _, following, length, _ = DIRENT.unpack_from(reply.body, at)
            at += DIRENT.size
            found.append((reply.body[at : at + length], following, entry))
            at += (length + 7) & ~7
        return found

    def list(
        self, nodeid: int, size: int = 4096, opcode: int = READDIRPLUS
    ) -> dict[bytes, Entry | None]:
        """The contents of a directory, from OPENDIR to RELEASEDIR; each name must appear once."""
        handle, _ = self.open(nodeid, opcode=OPENDIR)
        entries: dict[bytes, Entry | None] = {}
        offset = 0
        while found := self.some(nodeid, handle, offset, size, opcode):
            for name, offset, entry in found:  # noqa: B007 - the last offset goes on
                assert name not in entries
                entries[name] = entry
        self.release(nodeid, handle, RELEASEDIR)
        return entries

    def upcall(self) -> tuple[int, int, int, bytes]:
        """(opcode, unique, nodeid, body) of the next upcall."""
        message = self.control.recv(MESSAGE_BYTES)
        _, opcode, unique, nodeid, *_ = IN_HEADER.unpack_from(message)
        return opcode, unique, nodeid, message[IN_HEADER.size :]

    def notices(self) -> int:
        """Take the pending notifications and those that arrive within a moment."""
        self.channel.settimeout(0.2)
        count = 0
        try:
            while OUT_HEADER.unpack_from(self.channel.recv(MESSAGE_BYTES))[2] == 0:
                count += 1
        except TimeoutError:
            return count
        finally:
            self.channel.settimeout(WAIT_S)
        raise AssertionError("a reply among the notifications")

    def ask(self, opcode: int, nodeid: int, body: bytes = b"") -> int:
        """Send a request and receive it at control; returns its number."""
        unique = self.send(opcode, nodeid, body)
        assert self.upcall() == (opcode, unique, nodeid, body)
        return unique

    def answer(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        """Reply to an upcall as control."""
        self.control.sendall(OUT_HEADER.pack(OUT_HEADER.size + len(body), -error, unique) + body)

    def statistics(self) -> Statistics:
        return Statistics.of(self.path)

    def close(self) -> None:
        self.path.stop()
        self.channel.close()
        self.control.close()
