"""Opens paths strictly beneath a directory, and never enters one refused filesystem.

Opening follows no symbolic link and enters no mount of the refused device: a request to the mount
that this process serves would wait for this process forever. The kernel checks a whole path in one
call (openat2, Linux 5.6) if the path stays on the root's mount. For other paths and older kernels,
this module walks name by name. Within `near_only` a walk ends before a filesystem that may
not answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse import linux
from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, NEAR_MOUNTS, Status, statx
from zcfuse.tree._near import FarError, must_stay_near, require_near_mount, require_near_name

PATH_BYTES: Final = 4095  # PATH_MAX without its NUL; longer paths are opened in pieces
_RESOLVE: Final = (
    linux.RESOLVE_BENEATH
    | linux.RESOLVE_NO_SYMLINKS
    | linux.RESOLVE_NO_MAGICLINKS
    | linux.RESOLVE_NO_XDEV
)
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# The errnos if openat2 does not exist, or if a container's filter does not know it.
_NO_OPENAT2: Final = frozenset({errno.ENOSYS, errno.EPERM})


class Beneath:
    """Opens names beneath a root directory. Owns the root's O_PATH descriptor."""

    __slots__ = ("_mount", "_near", "_openat2", "_refused", "fd")

    def __init__(self, fd: int, *, openat2: bool = True) -> None:
        """Take over `fd`; openat2=False always walks name by name."""
        self.fd = fd
        self._refused = -1
        self._mount = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC).mount
        self._near = NEAR_MOUNTS.is_near(self._mount)
        self._openat2 = openat2 and self._has_openat2()

    def refuse(self, device: int) -> None:
        """Raise ELOOP from now on for files on `device` (as in Status.device)."""
        self._refused = device

    def open(self, names: Sequence[bytes], flags: int) -> int:
        """Open the path made of `names`; none of them may be a dot name or hold a slash.

        Raises OSError: ELOOP or ENOTDIR at a symbolic link, ELOOP at the refused device.
        """
        self.require_near()
        if self._openat2:
            try:
                return self._open_pieces(names, flags | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        return self._walk(names, flags)

    def look(self, directory: int, name: bytes) -> Status:
        """Return the status of `name` in the open directory, without asking a refused device."""
        self.require_near()
        require_near_name(name)
        flags = linux.AT_SYMLINK_NOFOLLOW | linux.AT_NO_AUTOMOUNT | linux.AT_STATX_DONT_SYNC
        return self._accept(statx(directory, name, flags))

    def examine(self, fd: int) -> Status:
        """Return the status of an open descriptor, without asking a refused device."""
        return self._accept(statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC))

    def step(self, directory: int, name: bytes) -> int:
        """Open `name` in the open directory as O_PATH, a symbolic link itself included."""
        self.require_near()
        require_near_name(name)
        fd = os.open(name, _STEP, dir_fd=directory)
        try:
            self.examine(fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def require_near(self) -> None:
        """Raise FarError where this thread must stay near and the root's filesystem is far."""
        if not self._near and must_stay_near():
            raise FarError(self._mount)

    def close(self) -> None:
        """Close the root's descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # Frees a mirror that was made briefly, below a program's directory.
        self.close()

    def _accept(self, status: Status) -> Status:
        if status.device == self._refused:
            raise OSError(errno.ELOOP, "this is the mount's own filesystem")
        if status.mount != self._mount:
            require_near_mount(status.mount)
        elif not self._near:
            self.require_near()
        return status

    def _has_openat2(self) -> bool:
        try:
            os.close(linux.openat2(self.fd, b".", _STEP, _RESOLVE))
        except OSError as error:
            if error.errno in _NO_OPENAT2:
                return False
            raise
        return True

    def _open_pieces(self, names: Sequence[bytes], flags: int) -> int:
        path = b"/".join(names) or b"."
        if len(path) <= PATH_BYTES:
            return linux.openat2(self.fd, path, flags, _RESOLVE)
        fd = self.fd
        *leading, last = _pieces(names)
        try:
            for piece in leading:
                following = linux.openat2(fd, piece, _STEP | os.O_DIRECTORY, _RESOLVE)
                self._drop(fd)
                fd = following
            return linux.openat2(fd, last, flags, _RESOLVE)
        finally:
            self._drop(fd)

    def _walk(self, names: Sequence[bytes], flags: int) -> int:
        fd = self.fd
        try:
            for name in names:
                following = self.step(fd, name)
                self._drop(fd)
                fd = following
            if flags & os.O_PATH and not flags & os.O_DIRECTORY:
                return os.dup(fd)
            # Only the link in /proc reopens the very file that was checked.
            return os.open(b"/proc/self/fd/%d" % fd, flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
        finally:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        if fd != self.fd:
            os.close(fd)


def _pieces(names: Sequence[bytes]) -> Iterator[bytes]:
    piece: list[bytes] = []
    length = 0
    for name in names:
        if piece and length + len(name) + 1 > PATH_BYTES:
            yield b"/".join(piece)
            piece, length = [], 0
        piece.append(name)
        length += len(name) + 1
    yield b"/".join(piece)
