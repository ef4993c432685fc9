"""Asks a directory of a real filesystem, and the mounts inside it, through native sources.

A native source follows no symbolic link and enters no other mount. Where a path leads into another
mount, this module opens the root of that mount and asks a further source. It keeps none of them, so
the mount can be unmounted. It sends no request to the refused device: a request to the mount that
this process serves would wait for this process forever. Within `near_only` it stops before a
filesystem that may not answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, TypeVar

import msgspec

from zcfuse.datapath import SourceDirectory, mixed_ino, open_directory
from zcfuse.linux import (
    AT_EMPTY_PATH,
    AT_STATX_DONT_SYNC,
    NEAR_MOUNTS,
    Attributes,
    Status,
    is_stacked,
    statx,
)
from zcfuse.tree._near import FarError, must_stay_near, require_near_mount, require_near_name

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOUNT_ROOT: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DOTS: Final = frozenset({b"", b".", b".."})
_MOUNT: Final = Struct("=QQ")
IDENTITY_BYTES: Final = 20
"""Of a file on one mount; those of its mount may stand before them."""

_T = TypeVar("_T")

Call = Callable[[SourceDirectory, bytes, bytes], _T | None]
"""Asks an open directory about a name, for a file of this identity; None: a mount is there."""


class OpenPlace(msgspec.Struct, frozen=True, eq=False):
    """An open directory, or a mounted file. `mount` begins the identities of the files in it."""

    at: SourceDirectory
    mount: bytes = b""


class Backing:
    """A directory of a real filesystem. Owns a descriptor of it.

    A path is a sequence of names; none of them may be a dot name or contain a slash or a NUL.
    Methods raise OSError: ELOOP at a symbolic link on the way and at the refused device. `stacked`
    is True if its filesystem lies on others, such as overlayfs.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        openat2: bool = True,
        numbers_of: int | None = None,
    ) -> None:
        """Open it; openat2=False walks each path name by name.

        Inode numbers of the device `numbers_of` (as in Status.device) are shown unchanged; None:
        those of the directory's device.
        """
        fd = os.open(path, _DIRECTORY)
        try:
            status = statx(fd, b"", AT_EMPTY_PATH)
            self.device: Final = status.device
            self.stacked: Final = is_stacked(fd)
            self._numbers_of = status.device if numbers_of is None else numbers_of
        except BaseException:
            os.close(fd)
            raise
        self._walks = not openat2
        root = open_directory(fd, self._numbers_of, self._walks)
        self._mount = status.mount
        self._near = NEAR_MOUNTS.is_near(status.mount)
        self._root: OpenPlace | None = OpenPlace(root)
        self.identity: Final = _found(root.find(b""))[0]
        self._refused = -1

    @property
    def root(self) -> OpenPlace:
        """The directory itself. Raises OSError: EBADF after close()."""
        if self._root is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._root

    def fileno(self) -> int:
        """Return the directory's O_PATH descriptor, which stays the object's."""
        return self.root.at.fileno()

    def refuse(self, device: int) -> None:
        """Raise ELOOP from now on for files on `device` (as in Status.device)."""
        self._refused = device

    def require_near(self) -> None:
        """Raise FarError where this thread must stay near and the directory's filesystem is far."""
        if not self._near and must_stay_near():
            raise FarError(self._mount)

    def enter(self, names: Sequence[bytes], identity: bytes | None = None) -> OpenPlace:
        """Open the directory at a path; ESTALE if it has another identity than this one."""
        self.require_near()
        place = self.root
        if names:
            at = place.at.enter(b"/".join(names))
            place = self._walk(names) if at is None else OpenPlace(at)
        if identity is not None:
            mount, own = _split(identity)
            if mount != place.mount or place.at.status(b"", own) is None:
                raise _stale()
        return place

    def step(self, place: OpenPlace, name: bytes) -> OpenPlace:
        """Open a directory in an open one."""
        self.require_near()
        require_near_name(name)
        at = place.at.enter(name)
        return self._cross(place, name) if at is None else OpenPlace(at, place.mount)

    def find(self, place: OpenPlace, name: bytes) -> tuple[OpenPlace, bytes, bytes, Attributes]:
        """Look a name up in an open directory; b"" stands for the directory itself.

        Returns where it lies and its name there, its identity, and its attributes. The name is b""
        if another mount is there.
        """
        self.require_near()
        if name:
            require_near_name(name)
        found = place.at.find(name)
        if found is None:
            place, name = self._cross(place, name), b""
            found = place.at.find(name)
        identity, attributes = _found(found)
        return place, name, place.mount + identity, Attributes(*attributes)

    def ask(self, names: Sequence[bytes], identity: bytes, call: Call[_T]) -> _T:
        """Make a call about the file at a path; ESTALE if it has another identity."""
        place, name = self.root, b""
        if names:
            place, name = self.enter(names[:-1]), names[-1]
            require_near_name(name)
        else:
            self.require_near()
        mount, own = _split(identity)
        if mount == place.mount:
            answer = call(place.at, name, own)
            if answer is not None:
                return answer
        elif place.at.find(name) is not None:
            raise _stale()
        mounted = self._cross(place, name)
        answer = call(mounted.at, b"", own) if mount == mounted.mount else None
        if answer is None:
            raise _stale()
        return answer

    def open(self, names: Sequence[bytes]) -> int:
        """Open the regular file at a path for reading, whatever its identity.

        Raises OSError: EXDEV for a path with a dot name, EISDIR for a directory, ESTALE for other
        kinds.
        """
        if not _DOTS.isdisjoint(names):
            raise OSError(errno.EXDEV, "not a path below the directory")
        place, name, identity, _ = self.find(self.enter(names[:-1]), names[-1])
        return _found(place.at.open(name, _split(identity)[1]))

    def describe(self, status: Status) -> Attributes:
        """Return the attributes that clients see of a file with this status."""
        if status.device == self._numbers_of:
            return status.attributes
        shown = mixed_ino(status.device, status.attributes.ino)
        return msgspec.structs.replace(status.attributes, ino=shown)

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        self._root = None

    def _walk(self, names: Sequence[bytes]) -> OpenPlace:
        place = self.root
        for name in names:
            place = self.step(place, name)
        return place

    def _cross(self, place: OpenPlace, name: bytes) -> OpenPlace:
        """Open the root of the mount that lies at a name."""
        fd = os.open(name, _MOUNT_ROOT, dir_fd=place.at.fileno())
        try:
            status = statx(fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC)
            if status.device == self._refused:
                raise OSError(errno.ELOOP, "this is the mount's own filesystem")
            if status.mount != self._mount:
                require_near_mount(status.mount)
        except BaseException:
            os.close(fd)
            raise
        at = open_directory(fd, self._numbers_of, self._walks)
        # The mount is part of the identity: a directory bound to two places is two directories,
        # because a client's kernel allows each only one parent.
        mount = status.mount if status.mount != self._mount else 0
        return OpenPlace(at, _MOUNT.pack(status.device, mount))


def _found(answer: _T | None) -> _T:
    if answer is None:
        raise _stale()
    return answer


def _split(identity: bytes) -> tuple[bytes, bytes]:
    return identity[:-IDENTITY_BYTES], identity[-IDENTITY_BYTES:]


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))
