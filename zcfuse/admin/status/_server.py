"""Serves the daemon's end of the status socket, in the daemon's trio nursery.

Only the same user and root get an answer; the kernel identifies them (SO_PEERCRED, unix(7)). Before
that, the directory and the socket's mode keep others out. Every exchange has a limit in bytes and
in time, so a silent client costs one task for a few seconds.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from zcfuse.admin.status._document import (
    EXCHANGE_TIMEOUT_S,
    MAX_REQUEST_BYTES,
    Refusal,
    Reply,
    Request,
)
from zcfuse.admin.status._registry import peer_credentials

log = logging.getLogger(__name__)

_MAX_CLIENTS: Final = 16

Responder = Callable[[Request], Awaitable[Reply]]


async def serve_status(listener: socket.socket, respond: Responder, replies: trio.Nursery) -> None:
    """Answer clients until cancelled.

    Parameters:
        listener: a listening AF_UNIX stream socket; closed at the end.
        respond: makes the answer to a request.
        replies: the nursery of the answers. It outlives this call, so a cancellation lets answers
            on their way go out.
    """
    listener.setblocking(False)
    clients = trio.CapacityLimiter(_MAX_CLIENTS)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream, clients:
            try:
                await _exchange(stream, respond)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                log.debug("a status client went away before its answer")
            except Exception:
                log.exception("a status request failed")

    stream_listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    await trio.serve_listeners(handle, [stream_listener], handler_nursery=replies)


async def _exchange(stream: trio.SocketStream, respond: Responder) -> None:
    _, uid = peer_credentials(stream.socket)
    if uid not in (0, os.geteuid()):
        log.warning("refused a status request of user %d", uid)
        return
    reply: Reply
    line = None
    with trio.move_on_after(EXCHANGE_TIMEOUT_S):
        line = await _receive_line(stream)
    if line is None:
        return
    try:
        request = msgspec.json.decode(line, type=Request)
    except msgspec.MsgspecError as error:
        reply = Refusal(message=f"not a request: {error}")
    else:
        reply = await respond(request)
    with trio.move_on_after(EXCHANGE_TIMEOUT_S):
        await stream.send_all(msgspec.json.encode(reply) + b"\n")


async def _receive_line(stream: trio.SocketStream) -> bytes | None:
    received = bytearray()
    while b"\n" not in received:
        chunk = await stream.receive_some(MAX_REQUEST_BYTES)
        received += chunk
        if not chunk or len(received) > MAX_REQUEST_BYTES:
            return None
    return bytes(received.partition(b"\n")[0])
