"""Where the daemons' status sockets are, and which zcfuse mounts exist.

A socket is named after its filesystem's device number, which is unique on the machine while the
mount exists (also across mount namespaces), so nothing has to be kept in step: the mounts
themselves are the registry. The directory belongs to one user and is 0700; it is opened once and
then used through its descriptor, so that nobody can swap it between the check and the use, and the
length of its path does not matter (unix(7): 108 bytes).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from zcfuse.linux import MountEntry, MountError, read_mounts

DIRECTORY_NAME: Final = "zcfuse"
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Connections that wait to be accepted; status clients are few and quick.
_BACKLOG: Final = 16
# struct ucred: unix(7).
_CREDENTIALS: Final = struct.Struct("iII")


def list_mounts() -> list[MountEntry]:
    """Return every zcfuse mount that this process sees, alive or dead."""
    return [entry for entry in read_mounts() if entry.is_ours]


def socket_name(device: tuple[int, int]) -> str:
    """Return the name of a mount's status socket inside the runtime directory."""
    major, minor = device
    return f"{major}-{minor}.sock"


def runtime_directories(uid: int) -> list[str]:
    """Return where a user's daemons may have their sockets, the preferred place first."""
    return [*_fixed_directories(uid), *_others_in_tmp(uid)]


def _fixed_directories(uid: int) -> list[str]:
    places = []
    environment = os.environ.get("XDG_RUNTIME_DIR", "")
    # su and sudo may leave the caller's own variable to somebody else.
    if uid == os.geteuid() and os.path.isabs(environment) and _owner(environment) == uid:
        places.append(os.path.join(environment, DIRECTORY_NAME))
    if uid == 0:
        places.append(f"/run/{DIRECTORY_NAME}")
    places += [f"/run/user/{uid}/{DIRECTORY_NAME}", f"/tmp/{DIRECTORY_NAME}-{uid}"]
    return list(dict.fromkeys(places))


def _others_in_tmp(uid: int) -> list[str]:
    """Return the user's directories in /tmp that have a random ending.

    A daemon makes one where another user has taken the fixed name.
    """
    try:
        with os.scandir("/tmp") as found:
            names = sorted(one.path for one in found if one.name.startswith(_random_start(uid)))
    except OSError:
        return []
    return [path for path in names if _owner(path) == uid]


def _random_start(uid: int) -> str:
    return f"{DIRECTORY_NAME}-{uid}."


def _owner(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_uid
    except OSError:
        return -1


@contextmanager
def listening(device: tuple[int, int]) -> Iterator[socket.socket]:
    """Listen on the status socket of a mount; the socket's file is removed at the end.

    Raises:
        MountError: none of the user's runtime directories can be used.
    """
    directory = _own_directory()
    name = socket_name(device)
    path = f"/proc/self/fd/{directory}/{name}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            # The number is ours now, so a file of that name belongs to a daemon that is gone.
            _remove(directory, name)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            # Held to the end: the socket is closed by then, and the inode number of a file that is
            # gone is soon another's.
            own = os.open(name, _HANDLE_FLAGS, dir_fd=directory)
            try:
                yield listener
            finally:
                # The next mount may have the number by now, and its socket the name.
                if _inode(directory, name) == os.fstat(own).st_ino:
                    _remove(directory, name)
                os.close(own)
    finally:
        os.close(directory)


def _inode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return -1


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def _own_directory() -> int:
    uid = os.geteuid()
    reasons = []
    for place in runtime_directories(uid):
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            pass
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
            continue
        try:
            return open_directory(place, uid)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    try:
        return open_directory(tempfile.mkdtemp(prefix=_random_start(uid), dir="/tmp"), uid)
    except OSError as error:
        reasons.append(f"/tmp: {error.strerror}")
    raise MountError(
        f"no directory for the status socket ({'; '.join(reasons)}):"
        " set XDG_RUNTIME_DIR to one of yours"
    )


def open_directory(place: str, uid: int) -> int:
    """Open a runtime directory and make sure that only *uid* can have put anything into it.

    Raises:
        OSError: it is missing, somebody else's (EPERM), or others may write to it (EPERM).
    """
    descriptor = os.open(place, _DIRECTORY_FLAGS)
    status = os.fstat(descriptor)
    if status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise PermissionError(
            errno.EPERM, f"not a directory of mode 0700 that user {uid} owns", place
        )
    return descriptor


def connect(device: tuple[int, int], uid: int, timeout: float) -> socket.socket | None:
    """Connect to the status socket of a mount.

    Parameters:
        device: the mount's device number.
        uid: the user whose daemon it is.
        timeout: for the connection and every later call on the socket, in seconds.

    Returns:
        The connected socket, or None if no daemon listens.
    """
    for place in runtime_directories(uid):
        try:
            directory = open_directory(place, uid)
        except OSError:
            continue
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        client.settimeout(timeout)
        try:
            client.connect(f"/proc/self/fd/{directory}/{socket_name(device)}")
            return client
        except OSError:
            client.close()
        finally:
            os.close(directory)
    return None


class _HasOptions(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_credentials(connection: _HasOptions) -> tuple[int, int]:
    """Return (process id, user id) of an AF_UNIX connection's other end, on the kernel's word."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
