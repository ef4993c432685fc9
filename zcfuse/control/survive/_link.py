"""A daemon's connection to its holder: one SEQPACKET socket with messages of fixed size.

``zcfuse/datapath/native/holder/messages.hpp`` is the other side. The socket blocks: a daemon that
waits to take over does nothing else, and the holder always reads what a serving daemon sends.
"""

from __future__ import annotations

import array
import contextlib
import signal
import socket
import struct
from dataclasses import dataclass, field
from typing import Final

import trio

from zcfuse.datapath import (
    HOLDER_GO,
    HOLDER_HANDOVER,
    HOLDER_HANDOVERS,
    HOLDER_MESSAGE,
    HOLDER_UNKNOWN,
)

_MESSAGE: Final = struct.Struct(HOLDER_MESSAGE)
_GO: Final = struct.Struct(HOLDER_GO)
_HANDOVER: Final = struct.Struct(HOLDER_HANDOVER)
_LARGEST: Final = _GO.size + HOLDER_HANDOVERS * _HANDOVER.size


@dataclass(frozen=True, slots=True)
class Handover:
    """One change of the process that serves a mount.

    Parameters:
        at: when the old one ended, in seconds since 1970.
        pause: from then until the new one answered, in seconds; 0 while it does not answer yet.
        cause: ``upgrade``, the name of the signal that ended it, or ``exit`` and its status. Of a
            program: ``left``, or ``ended`` without leaving the mount first.
    """

    at: float
    pause: float
    cause: str


@dataclass(slots=True)
class Takeover:
    """The descriptors and the history that a daemon takes over.

    Parameters:
        generation: 1 for the first daemon of a mount, which mounts.
        deaths: daemons that ended unexpectedly before this one.
        began: when the pause began (`time.monotonic`); None for the first daemon.
        longest_pause: of all handovers before this one, in seconds.
        holder: the holder's process id.
        handovers: the last ones, the newest at the end.
        descriptors: what the holder keeps, by name; the daemon owns these copies.
    """

    generation: int
    deaths: int
    began: float | None
    longest_pause: float
    holder: int
    handovers: list[Handover]
    descriptors: dict[str, int] = field(default_factory=dict)


class HolderRefusedError(Exception):
    """The holder of a program lets nobody take over: ``serves``, ``layout``, ``user``, ``busy``."""


class Link:
    """The connection. The trio thread uses it; it closes with the process."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._answered = trio.Event()
        self._layout = ""

    def keep(self, name: str, descriptor: int) -> None:
        """Have the holder keep a copy of a descriptor, in place of an earlier one of the name.

        Raises:
            OSError: the holder is gone.
        """
        rights = array.array("i", [descriptor])
        self._channel.sendmsg(
            [_MESSAGE.pack(b"K", name.encode())],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
        )

    def fileno(self) -> int:
        """Return the descriptor of the socket; the link owns it."""
        return self._channel.fileno()

    def listen(self, listener: socket.socket, directory: int, name: str) -> None:
        """Have the holder of a program take the next program from a socket, and remove its file.

        Parameters:
            listener: a listening socket; the holder gets a copy.
            directory: a descriptor of the directory that the socket's file is in.
            name: of that file.

        Raises:
            OSError: the holder is gone.
        """
        for kind, descriptor, text in ((b"A", listener.fileno(), ""), (b"D", directory, name)):
            rights = array.array("i", [descriptor])
            self._channel.sendmsg(
                [_MESSAGE.pack(kind, text.encode())],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
            )

    def close(self) -> None:
        """Let the holder of a program know that nothing of this process serves any more."""
        with contextlib.suppress(OSError):  # the holder may be gone
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()

    def warm(self, layout: str) -> None:
        """Report that this daemon can take over a state of a layout."""
        self._send(b"S", layout)

    def serving(self) -> None:
        """Report that clients are answered."""
        self._send(b"R")

    def ending(self) -> None:
        """Report that the mount ends: with this process, the holder and the standby end too."""
        self._send(b"E")

    def handing_over(self) -> None:
        """Report that this process ends for a successor."""
        self._send(b"H")

    async def renewed(self) -> str:
        """Have the holder start another standby, of the installed version, and wait for it.

        `attend` must run meanwhile. A cancellation leaves the new standby in place.

        Returns:
            The layout of state that the new standby takes; "" if it did not start.
        """
        self._answered = trio.Event()
        self._send(b"U")
        await self._answered.wait()
        return self._layout

    def wait_takeover(self) -> Takeover | None:
        """Wait until this process shall take over; None if the holder ends instead.

        Raises:
            HolderRefusedError: another program serves, or the state has another layout.
        """
        descriptors: dict[str, int] = {}
        while True:
            message, rights, _, _ = self._channel.recvmsg(
                _LARGEST, socket.CMSG_LEN(4), socket.MSG_CMSG_CLOEXEC
            )
            if not message:
                return None
            if message[:1] == b"N":
                raise HolderRefusedError(_text(_MESSAGE.unpack(message)[1]))
            if message[:1] == b"F":
                found = array.array("i", rights[0][2][:4])
                descriptors[_text(_MESSAGE.unpack(message)[1])] = found[0]
            elif message[:1] == b"G":
                takeover = _takeover(message)
                takeover.descriptors = descriptors
                return takeover

    async def attend(self) -> None:
        """Take the holder's messages until the holder has ended."""
        while True:
            await trio.lowlevel.wait_readable(self._channel)
            try:
                message = self._channel.recv(_LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                message = b""
            if not message:
                self._layout = ""
                self._answered.set()
                return
            kind, text = _MESSAGE.unpack(message)
            if kind == b"V":
                self._layout = _text(text)
                self._answered.set()

    def _send(self, kind: bytes, text: str = "") -> None:
        self._channel.send(_MESSAGE.pack(kind, text.encode()))


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def _takeover(message: bytes) -> Takeover:
    _, generation, deaths, kept, since, longest, holder = _GO.unpack_from(message)
    handovers = [
        _handover(*_HANDOVER.unpack_from(message, _GO.size + at * _HANDOVER.size))
        for at in range(kept)
    ]
    began = since / 1e9 if since else None
    return Takeover(generation, deaths, began, longest / 1e9, holder, handovers)


def _handover(at_ns: int, pause_ns: int, number: int, status: int, planned: int) -> Handover:
    cause = f"exit {status}"
    if status == HOLDER_UNKNOWN:
        cause = "left" if planned else "ended"
    elif planned:
        cause = "upgrade"
    elif number:
        cause = signal.Signals(number).name
    return Handover(at_ns / 1e9, pause_ns / 1e9, cause)
