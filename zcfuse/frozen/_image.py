"""An open image: its description, and what the data path's reader finds in it.

The data path reads inodes, names and places (`zcfuse.datapath.ErofsImage`); it trusts no byte of an
image. An image may be read from any thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from zcfuse.datapath import BLOCK_BYTES, SECTOR_BYTES, ErofsImage, Source, frozen_source
from zcfuse.frozen._about import digest_of, read_about
from zcfuse.frozen._errors import DamagedImageError
from zcfuse.frozen._image_file import ImageFile
from zcfuse.frozen._layout import DeviceRun
from zcfuse.tree import Attributes

_SECOND_NS: Final = 1_000_000_000
_CONTENT_BYTES: Final = 8  # of the digest
_T = TypeVar("_T")


class FrozenImage:
    """An open image. Owns its file.

    Its methods raise DamagedImageError where the image contradicts itself, and OSError: ENOTDIR,
    EISDIR or EINVAL for an inode of another type.

    Parameters:
        path: of the image.
        intact: whether to read all of it first, and to compare its digest.

    Raises:
        ImageError: it is no image; DamagedImageError: its bytes are others than those written.
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, *, intact: bool = True) -> None:
        self.file: Final = ImageFile(path)
        try:
            about, digest = read_about(self.file)
            self.about: Final = about
            if intact and digest != digest_of(self.file):
                raise DamagedImageError(
                    f"{path}: damaged (its SHA-256 differs): freeze the tree again"
                )
            self._reader: Final = self._opened(int.from_bytes(digest[:_CONTENT_BYTES]))
        except BaseException:
            self.file.close()
            raise

    @property
    def root(self) -> int:
        """The node id of the root directory."""
        return self._reader.root

    def attributes(self, nid: int) -> Attributes:
        """Return the attributes of an inode; its number is the node id."""
        mode, nlink, uid, gid, rdev, size, seconds, nanoseconds = self._read(
            nid, self._reader.attributes, nid
        )
        mtime_ns = seconds * _SECOND_NS + nanoseconds
        return Attributes(
            ino=nid,
            mode=mode,
            nlink=nlink,
            uid=uid,
            gid=gid,
            rdev=rdev,
            size=size,
            blksize=BLOCK_BYTES,
            blocks=-(-size // BLOCK_BYTES) * (BLOCK_BYTES // SECTOR_BYTES),
            atime_ns=mtime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=mtime_ns,
        )

    def target(self, nid: int) -> bytes:
        """Return the target of a symbolic link; EINVAL for anything else."""
        return self._read(nid, self._reader.target, nid)

    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the node id of a name, None where the directory has none."""
        return self._read(directory, self._reader.lookup, directory, name)

    def entries(self, directory: int, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """Yield (number to go on from, name, node id), in the order of the names' bytes.

        ``.`` and ``..`` are among them.
        """
        while found := self._read(directory, self._reader.entries, directory, start):
            yield from found
            start = found[-1][0]

    def xattr(self, nid: int, name: bytes) -> bytes:
        """Return the value of an extended attribute; ENODATA without it."""
        return self._read(nid, self._reader.xattr, nid, name)

    def xattr_names(self, nid: int) -> Sequence[bytes]:
        """Return the names of the extended attributes; the image hides its own marks."""
        return self._read(nid, self._reader.xattr_names, nid)

    def place(self, nid: int) -> bytes | Sequence[DeviceRun]:
        """Return where the bytes of a regular file lie.

        A whole file lies at a path below one of the roots (`About.roots`), another one in pieces.
        """
        found = self._read(nid, self._reader.place, nid)
        return found if isinstance(found, bytes) else [DeviceRun(*piece) for piece in found]

    def source(self, roots: Sequence[int], refused: tuple[int, int]) -> Source:
        """Return the source that shows the image in the data path.

        Parameters:
            roots: descriptors of the directories in `About.roots`, which are copied.
            refused: the (major, minor) number of the mount that shows it.

        Raises:
            OSError: a descriptor cannot be copied.
        """
        devices = [(one.path, one.size, one.mtime_ns) for one in self.about.devices]
        return frozen_source(self._reader, devices, roots, refused)

    def records(self) -> bytes:
        """Return what is recorded of the backing files."""
        table = self.about.records
        return self.file.read(table.offset, table.size)

    def close(self) -> None:
        """Close the image; a second call does nothing."""
        self.file.close()

    def _opened(self, content: int) -> ErofsImage:
        pieces = self.about.pieces
        sizes = [device.size for device in self.about.devices]
        try:
            return ErofsImage(self.file.fd, sizes, (pieces.offset, pieces.size), content)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise DamagedImageError(
                f"{self.file.path}: damaged: its superblock is not one of EROFS"
            ) from error

    def _read(self, nid: int, question: Callable[..., _T], *arguments: int | bytes) -> _T:
        try:
            return question(*arguments)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise DamagedImageError(f"{self.file.path}: damaged: node {nid}") from error
