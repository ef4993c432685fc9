"""Asks a daemon for its status, or to unmount. The calls block; every wait is bounded."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

import msgspec

from zcfuse.admin.status._document import (
    EXCHANGE_TIMEOUT_S,
    MAX_REPLY_BYTES,
    Refusal,
    Reply,
    Request,
    StatusDocument,
    UnmountReply,
)
from zcfuse.admin.status._holder import holder_state
from zcfuse.admin.status._registry import connect, peer_credentials
from zcfuse.linux import Answer, MountEntry, mount_at, probe, resolve_mountpoint

# Time that the daemon may need after the wait for a busy mount, to end the threads of its data path
# and send its last reply.
_ENDING_S: Final = 15.0
_ALIVE_S: Final = 3.0
# How long a daemon may be a zombie, and how often to look.
_ZOMBIE_S: Final = 1.0
_LOOK_S: Final = 0.2


class StatusError(Exception):
    """A daemon did not answer; the text is one line with the remedy.

    Parameters:
        usage: True if the path is not a zcfuse mount at all.
        dead: True if the mount exists but its daemon is gone.
        waits: True if its holder waits for a program that takes it over.
    """

    def __init__(
        self, message: str, *, usage: bool = False, dead: bool = False, waits: bool = False
    ) -> None:
        super().__init__(message)
        self.usage = usage
        self.dead = dead
        self.waits = waits


def find_mount(mountpoint: str | bytes | os.PathLike[str]) -> MountEntry:
    """Return the zcfuse mount at a path.

    Raises:
        StatusError: there is no mount, or a mount of another kind.
    """
    path = resolve_mountpoint(mountpoint)
    entry = mount_at(path)
    if entry is None:
        hint = (
            "see 'zcfuse list'" if os.path.lexists(path) else "it does not exist, see 'zcfuse list'"
        )
        raise StatusError(f"{os.fsdecode(mountpoint)}: not a zcfuse mount: {hint}", usage=True)
    if not entry.is_ours:
        raise StatusError(
            f"{os.fsdecode(mountpoint)}: not a zcfuse mount but {entry.fstype} ({entry.source}):"
            " left alone, use umount(8)",
            usage=True,
        )
    return entry


def read_status(
    mountpoint: str | bytes | os.PathLike[str], *, timeout: float = EXCHANGE_TIMEOUT_S
) -> StatusDocument:
    """Ask the daemon of a mount for its status.

    Parameters:
        mountpoint: the mount point.
        timeout: for the answer, in seconds.

    Raises:
        StatusError: it is no zcfuse mount, or its daemon is gone or does not answer.
    """
    return read_status_of(find_mount(mountpoint), timeout=timeout)


def read_status_of(entry: MountEntry, *, timeout: float = EXCHANGE_TIMEOUT_S) -> StatusDocument:
    """Ask the daemon of a known mount; see `read_status`."""
    with _connect(entry, timeout) as client:
        reply = _exchange(client, Request("status"), entry, timeout)
    if isinstance(reply, StatusDocument):
        if reply.device == f"{entry.major}:{entry.minor}":
            return reply
        raise StatusError(f"{entry.mountpoint}: the daemon that answered serves another mount")
    raise StatusError(f"{entry.mountpoint}: unexpected answer {reply!r}")


def ask(entry: MountEntry, request: Request, *, timeout: float = EXCHANGE_TIMEOUT_S) -> Reply:
    """Send the daemon of a mount a request and return its answer.

    Parameters:
        entry: the mount.
        request: the question.
        timeout: for the answer, in seconds.

    Raises:
        StatusError: the daemon is gone, did not answer in time, or refused.
    """
    with _connect(entry, timeout) as client:
        return _exchange(client, request, entry, timeout)


def request_unmount(entry: MountEntry, wait: float, *, force: bool = True) -> UnmountReply:
    """Ask the daemon to unmount and end, and wait until its process is gone.

    Parameters:
        entry: the mount.
        wait: how long the daemon waits for a busy mount, in seconds.
        force: whether the daemon then detaches the mount; otherwise the mount stays in service.

    Returns:
        The outcome of the unmount.

    Raises:
        StatusError: the daemon is gone or did not answer in time.
    """
    # Find a hanging daemon here, and not after the long time that an unmount may take.
    read_status_of(entry, timeout=_ALIVE_S)
    timeout = wait + _ENDING_S
    with _connect(entry, timeout) as client:
        ended = _watch_daemon(client)
        reply = _exchange(client, Request("unmount", wait, force=force), entry, timeout)
    if not isinstance(reply, UnmountReply):
        raise StatusError(f"{entry.mountpoint}: unexpected answer {reply!r}")
    if not reply.failed:
        ended(_ENDING_S)
    return reply


def _connect(entry: MountEntry, timeout: float) -> socket.socket:
    owner, _ = entry.owner
    if os.geteuid() not in (0, owner):
        raise StatusError(
            f"{entry.mountpoint}: belongs to user {owner}:"
            " only that user and root may ask its daemon; use sudo"
        )
    client = connect(entry.device, owner, timeout)
    if client is None:
        raise _unreachable(entry)
    _, serves = peer_credentials(client)
    if serves != owner:
        client.close()
        raise StatusError(
            f"{entry.mountpoint}: user {serves} listens on the status socket of a mount of user"
            f" {owner}: not trusted; detach the mount with 'umount -l {entry.mountpoint}' as root"
        )
    return client


def _unreachable(entry: MountEntry) -> StatusError:
    where = entry.mountpoint
    held = holder_state(entry)
    if held is not None and held.left is not None:
        return StatusError(
            f"{where}: waits for a program, {held.left:.0f} s more: zcfuse.attach() in a program"
            f" takes it over, 'zcfuse umount {where}' ends it",
            waits=True,
        )
    answer = probe(where, owner=entry.owner)
    if answer is Answer.DEAD:
        return StatusError(
            f"{where}: its daemon is gone (killed?) and the mount is dead:"
            f" clean up with 'zcfuse umount {where}'",
            dead=True,
        )
    if answer is Answer.SILENT:
        return StatusError(
            f"{where}: neither the daemon nor the mount answers:"
            f" 'zcfuse umount {where}' detaches it"
        )
    return StatusError(
        f"{where}: served, but its status socket was not found: was XDG_RUNTIME_DIR another one?"
    )


def _exchange(client: socket.socket, request: Request, entry: MountEntry, timeout: float) -> Reply:
    deadline = time.monotonic() + timeout
    received = bytearray()
    try:
        client.sendall(msgspec.json.encode(request) + b"\n")
        while not received.endswith(b"\n"):
            client.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = client.recv(1 << 16)
            received += chunk
            if not chunk or len(received) > MAX_REPLY_BYTES:
                raise StatusError(
                    f"{entry.mountpoint}: the daemon broke off its answer: is it ending?"
                )
        reply: Reply = msgspec.json.decode(bytes(received), type=Reply)
    except TimeoutError as error:
        raise StatusError(
            f"{entry.mountpoint}: the daemon did not answer within {timeout:g} s"
        ) from error
    except OSError as error:
        raise StatusError(
            f"{entry.mountpoint}: the daemon cannot be asked: {error.strerror}"
        ) from error
    except msgspec.MsgspecError as error:
        raise StatusError(
            f"{entry.mountpoint}: not understood: {error}: is the daemon of another version?"
        ) from error
    if isinstance(reply, Refusal):
        raise StatusError(f"{entry.mountpoint}: the daemon refused: {reply.message}")
    return reply


def _watch_daemon(client: socket.socket) -> Callable[[float], bool]:
    """Return a function that waits a bounded time until the daemon's process has ended.

    A daemon that stays a zombie has a thread inside a call to a filesystem that does not answer.
    Nobody can end that thread, so the function waits no longer for it and returns False.
    """
    pid, _ = peer_credentials(client)
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        # The process is gone, or is in another process namespace, so its number means nothing here.
        return lambda _seconds: True

    def wait(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        alive = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if select.select([descriptor], [], [], max(0.0, min(_LOOK_S, deadline - now)))[0]:
                    return True
                if not _is_zombie(pid):
                    alive = now
                if now >= deadline or now - alive >= _ZOMBIE_S:
                    return False
        finally:
            os.close(descriptor)

    return wait


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False
