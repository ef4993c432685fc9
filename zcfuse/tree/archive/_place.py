"""The place of an archive: a name in an open directory.

If the mount covers the archive's directory, an open by path would make the daemon wait for itself.
Archives of one directory share the descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from typing import Final

from zcfuse.linux import AT_EMPTY_PATH, AT_STATX_DONT_SYNC, statx
from zcfuse.tree._near import require_near_mount, require_near_name
from zcfuse.tree.archive._errors import NotAnArchiveError
from zcfuse.tree.archive._identity import ArchiveIdentity, identify

# O_NONBLOCK: if a FIFO replaced the archive, open(2) must not wait for a writer.
READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
LOOK: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


class _Directory:
    """An open directory. Owns its descriptor, and closes it after the last reference."""

    def __init__(self, path: bytes) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.mount = statx(self.fd, b"", AT_EMPTY_PATH | AT_STATX_DONT_SYNC).mount

    def __del__(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


_directories: Final[weakref.WeakValueDictionary[bytes, _Directory]] = weakref.WeakValueDictionary()
_directories_lock: Final = threading.Lock()


class ArchivePlace:
    """The directory entry of an archive."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        """Follow the symlinks in `path` once, now. Raises OSError."""
        self.path: Final = os.path.realpath(os.fsencode(path))
        above, self._name = os.path.split(self.path)
        with _directories_lock:
            directory = _directories.get(above)
            if directory is None:
                directory = _directories[above] = _Directory(above)
        self._directory = directory

    @property
    def directory(self) -> bytes:
        """The directory, as a path through its open descriptor."""
        return b"/proc/self/fd/%d" % self._directory.fd

    def identity(self) -> ArchiveIdentity | None:
        """Return the identity of the file that is there now, None without one. Raises OSError."""
        try:
            fd = os.open(self._name, LOOK, dir_fd=self._directory.fd)
        except FileNotFoundError:
            return None
        try:
            return identify(self.path, fd)
        finally:
            os.close(fd)

    def open(self) -> int:
        """Open the file for reading and return its descriptor; NotAnArchiveError if not regular."""
        fd = os.open(self._name or b".", READ, dir_fd=self._directory.fd)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        raise NotAnArchiveError(self.path, "not a regular file; an archive is read in place")

    def open_unchanged(self, identity: ArchiveIdentity, flags: int = READ) -> int:
        """Open the indexed archive and return its descriptor.

        Raises OSError: ESTALE if it was replaced or changed.
        """
        self.require_near()
        try:
            fd = os.open(self._name, flags, dir_fd=self._directory.fd)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._stale() from None
        if identify(self.path, fd) == identity:
            return fd
        os.close(fd)
        raise self._stale()

    def check_unchanged(self, identity: ArchiveIdentity) -> None:
        """Raise as open_unchanged() would."""
        os.close(self.open_unchanged(identity, LOOK))

    def require_near(self) -> None:
        """Raise FarError where this thread must stay near and the archive is far."""
        require_near_mount(self._directory.mount)
        require_near_name(self._name)

    def _stale(self) -> OSError:
        return OSError(errno.ESTALE, "the archive has changed since it was indexed", self.path)
