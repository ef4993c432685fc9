"""Finds the zcfuse mounts and the status sockets of their daemons.

A socket has the name of its filesystem's device number, which is unique on the machine while the
mount exists, even across mount namespaces. So the mounts themselves are the registry. The directory
belongs to one user and has mode 0700. A process opens it once and then uses its descriptor, so that
no other user can swap it after the check. The length of its path is then no problem either (unix(7)
allows 108 bytes).
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
# Pending connections; status clients are few and quick.
_BACKLOG: Final = 16
# struct ucred, see unix(7).
_CREDENTIALS: Final = struct.Struct("iII")


def list_mounts() -> list[MountEntry]:
    """Return every zcfuse mount that this process sees, alive or dead."""
    return [entry for entry in read_mounts() if entry.is_ours]


def socket_name(device: tuple[int, int]) -> str:
    """Return the name of a mount's status socket inside the runtime directory."""
    major, minor = device
    return f"{major}-{minor}.sock"


def holder_name(device: tuple[int, int]) -> str:
    """Return the name of the socket on which the holder of a program's mount listens."""
    major, minor = device
    return f"{major}-{minor}.holder"


def listen_for_programs(device: tuple[int, int]) -> tuple[socket.socket, int, str]:
    """Listen where the holder of a program's mount takes the next program.

    Its file is there once it listens. So a file that refuses a connection is a dead holder's.

    Returns:
        The listening socket, a descriptor of the directory that its file is in, and the file's
        name; the caller closes both.

    Raises:
        MountError: the user has no usable runtime directory.
    """
    directory = runtime_directory()
    name = holder_name(device)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        early = f"{name}.{os.getpid()}"
        _remove(directory, early)
        path = f"/proc/self/fd/{directory}/{early}"
        listener.bind(path)
        try:
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            os.rename(early, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove(directory, early)
            raise
    except BaseException:
        listener.close()
        os.close(directory)
        raise
    return listener, directory, name


def remove_holder_socket(device: tuple[int, int]) -> None:
    """Remove the socket's file of a holder that was killed, if there is one.

    Parameters:
        device: of the mount that it kept, which still exists.
    """
    with contextlib.suppress(MountError):
        directory = runtime_directory()
        _remove(directory, holder_name(device))
        os.close(directory)


def runtime_directories(uid: int) -> list[str]:
    """Return the directories for the sockets of a user's daemons, the preferred one first."""
    return [*_fixed_directories(uid), *_others_in_tmp(uid)]


def _fixed_directories(uid: int) -> list[str]:
    places = []
    environment = os.environ.get("XDG_RUNTIME_DIR", "")
    # Under su and sudo the variable may still be that of the calling user.
    if uid == os.geteuid() and os.path.isabs(environment) and _owner(environment) == uid:
        places.append(os.path.join(environment, DIRECTORY_NAME))
    if uid == 0:
        places.append(f"/run/{DIRECTORY_NAME}")
    places += [f"/run/user/{uid}/{DIRECTORY_NAME}", f"/tmp/{DIRECTORY_NAME}-{uid}"]
    return list(dict.fromkeys(places))


def _others_in_tmp(uid: int) -> list[str]:
    """Return the user's directories in /tmp with a random ending.

    A daemon makes such a directory if another user has taken the fixed name.
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
    """Listen on the status socket of a mount; remove the socket's file at the end.

    Raises:
        MountError: the user has no usable runtime directory.
    """
    directory = runtime_directory()
    name = socket_name(device)
    path = f"/proc/self/fd/{directory}/{name}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            # This mount has the number now, so a file of that name belongs to a dead daemon.
            _remove(directory, name)
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
            # Keep the file open to the end. The socket closes earlier, and then a new file could
            # get the same inode number.
            own = os.open(name, _HANDLE_FLAGS, dir_fd=directory)
            try:
                yield listener
            finally:
                # By now the next mount may have the number, and its socket the name.
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


def runtime_directory() -> int:
    """Return a descriptor of this user's runtime directory; the caller closes it.

    Raises:
        MountError: the user has none that only this user may write.
    """
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
        f"no runtime directory ({'; '.join(reasons)}):"
        " set XDG_RUNTIME_DIR to a directory that you own"
    )


def open_directory(place: str, uid: int) -> int:
    """Open a runtime directory and check that only *uid* can have written to it.

    Raises:
        OSError: it is missing, or another user owns it or may write to it (EPERM).
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
        uid: the user of the daemon.
        timeout: for the connection and every later call on the socket, in seconds.

    Returns:
        The connected socket; None if no daemon listens.
    """
    return _connect(socket_name(device), socket.SOCK_STREAM, uid, timeout)


def connect_holder(device: tuple[int, int], uid: int, timeout: float) -> socket.socket | None:
    """Connect to the holder of a program's mount, as `connect` does; None if there is none.
    A holder of another user than `uid` counts as none. The socket's file of a holder that was
    killed is removed.
    """
    holder = _connect(holder_name(device), socket.SOCK_SEQPACKET, uid, timeout)
    if holder is not None and peer_credentials(holder)[1] != uid:
        holder.close()
        return None
    return holder


def _connect(name: str, kind: int, uid: int, timeout: float) -> socket.socket | None:
    for place in runtime_directories(uid):
        try:
            directory = open_directory(place, uid)
        except OSError:
            continue
        client = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        client.settimeout(timeout)
        try:
            client.connect(f"/proc/self/fd/{directory}/{name}")
            return client
        except ConnectionRefusedError:
            client.close()
            if kind == socket.SOCK_SEQPACKET:
                _remove(directory, name)
        except OSError:
            client.close()
        finally:
            os.close(directory)
    return None


class _HasOptions(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_credentials(connection: _HasOptions) -> tuple[int, int]:
    """Return (process id, user id) of an AF_UNIX connection's other end, from the kernel."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
