"""One walk through a tree, which writes one image.

The walk holds the names of the directories on the way to where it is, and of no other, so that its
memory does not grow with the tree. It makes plain blocking calls.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final

import msgspec

from zcfuse.frozen import _xattrs
from zcfuse.frozen._about import About, Table
from zcfuse.frozen._blocks import Chunks
from zcfuse.frozen._errors import FreezeError
from zcfuse.frozen._layout import FILE_TYPES, Inode
from zcfuse.frozen._places import CHANGED, Devices, FileRun, NotFreezableError, Whole, place_of
from zcfuse.frozen._records import Pieces, Records
from zcfuse.frozen._roots import Roots
from zcfuse.frozen._verity import mark_of, verity_of
from zcfuse.frozen._writer import Entry, ImageWriter
from zcfuse.tree import Attributes, BackingFile, Listing, Node, Tree

_PROGRESS_EVERY: Final = 512
_BUSY_S: Final = 60.0
_PAUSE_S: Final = 0.01
_NO_XATTRS: Final = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})
_ASKED: Final = "its answers depend on who asks, or change by themselves"
_WHITEOUT: Final = "a character device 0/0 is a whiteout for overlayfs"
_UNMAPPED: Final = "not made of blocks of 512 bytes"
_AMBIGUOUS: Final = "its path exists in several of the filesystems that files lie on"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a tree is frozen.

    `source` is what the image calls the tree. `roots` are directories that most of its files lie
    in, as absolute paths without symlinks. `leave_out`: write the image without what cannot be
    frozen. `verify`: record size and time of modification of each backing file; `digest`: a SHA-256
    of it as well, and the digest of fs-verity of those that have one. `copy_up_to`: copy whole
    files of up to so many bytes into the image, which then needs no backing file for them.
    """

    source: str
    roots: Sequence[bytes] = ()
    leave_out: bool = False
    verify: bool = False
    digest: bool = False
    copy_up_to: int = 0


class Reason(msgspec.Struct, frozen=True):
    """Something that concerns some entries: why, how many, and the first of them by path."""

    reason: str
    count: int
    example: bytes


class Reasons:
    """Counts entries by a reason that they share."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, bytes]] = {}

    def add(self, reason: str, example: bytes) -> None:
        """Count one more."""
        count, first = self._found.get(reason, (0, example))
        self._found[reason] = count + 1, first

    @property
    def all(self) -> list[Reason]:
        """The reasons, in the order in which they came up."""
        return [Reason(reason, count, path) for reason, (count, path) in self._found.items()]


class _Frame(msgspec.Struct, eq=False):
    """A directory that is being walked.

    `children` are places of ``..`` to be filled in. `volatile` are names that cannot be frozen.
    """

    name: bytes
    inode: Inode
    xattrs: bytes
    listing: Listing
    iterator: Iterator[tuple[int, bytes, Node, Attributes]]
    entries: list[Entry] = []
    children: list[int] = []
    volatile: list[bytes] = []


class Walk:
    """Walks `tree` and writes to `writer`. `progress` is called with the number of entries."""

    def __init__(
        self, tree: Tree, writer: ImageWriter, options: Options, progress: Callable[[int], None]
    ) -> None:
        self._tree = tree
        self._writer = writer
        self._options = options
        self._progress = progress
        self._devices = Devices(writer.layout)
        self._chunks = Chunks(writer, self._devices)
        self._roots = Roots(options.roots)
        self._pieces = Pieces(writer, self._devices)
        self._records = Records(digest=options.digest)
        self._escaped = False
        self._links: dict[Hashable, int] = {}
        self._frames: list[_Frame] = []
        self._files = self._directories = self._other = self._bytes = self._verity = 0
        self.left_out: Final = Reasons()
        self._fuse_only: Final = Reasons()

    def run(self) -> About:
        """Write the whole image except its description, and return that.

        Raises:
            FreezeError: something cannot be frozen, and was not to be left out.
            OtherLayoutNeededError: the tree needs an image of another layout.
            OSError: the tree's root cannot be read, or the image not written.
        """
        tree = self._tree
        self._enter(b"", tree.root, tree.attributes(tree.root))
        self._writer.reserve_root(self._frames[0].xattrs)
        while self._frames:
            frame = self._frames[-1]
            found = next(frame.iterator, None)
            if found is None:
                self._leave(frame)
            elif found[1] not in (b".", b".."):
                self._entry(frame, *found[1:])
        if self.left_out.all and not self._options.leave_out:
            raise FreezeError(_refusal(self.left_out.all))
        return self._finish()

    def _entry(self, frame: _Frame, name: bytes, node: Node, attributes: Attributes) -> None:
        total = self._files + self._directories + self._other
        if total % _PROGRESS_EVERY == 0:
            self._progress(total)
        if node.volatile:
            frame.volatile.append(name)
            return
        try:
            if stat.S_ISDIR(attributes.mode):
                self._enter(name, node, attributes)
                return
            nid = self._written(name, node, attributes)
        except NotFreezableError as error:
            self.left_out.add(str(error), self._path(name))
        except OSError as error:
            self.left_out.add(_unreadable(error.strerror or str(error)), self._path(name))
        else:
            frame.entries.append((name, nid, FILE_TYPES[stat.S_IFMT(attributes.mode)]))

    def _enter(self, name: bytes, node: Node, attributes: Attributes) -> None:
        xattrs = self._xattrs(node, {})
        listing = self._tree.listing(node)
        inode = _inode(attributes, 0)
        self._frames.append(_Frame(name, inode, xattrs, listing, listing.entries(0)))

    def _leave(self, frame: _Frame) -> None:
        self._leave_out(frame)
        self._frames.pop()
        self._directories += 1
        nid, place = self._writer.directory(
            frame.inode, frame.xattrs, frame.entries, root=not self._frames
        )
        for child in frame.children:
            self._writer.set_parent(child, nid)
        if self._frames:
            self._frames[-1].entries.append((frame.name, nid, FILE_TYPES[stat.S_IFDIR]))
            self._frames[-1].children.append(place)

    def _leave_out(self, frame: _Frame) -> None:
        """Count the names that the directory did not show, or showed with a stand-in."""
        failures = frame.listing.failures()
        for name in frame.volatile:
            if name not in failures:
                self.left_out.add(_ASKED, self._path(name))
        for name, number in failures.items():
            self.left_out.add(_unreadable(os.strerror(number)), self._path(name))
        frame.listing.close()

    def _written(self, name: bytes, node: Node, attributes: Attributes) -> int:
        """Write what is no directory, once for all its hard links, and return its node id."""
        linked = attributes.nlink > 1
        known = self._links.get(node.identity) if linked else None
        if known is not None:
            return known
        if stat.S_ISREG(attributes.mode):
            nid = self._file(name, node, attributes)
            self._files += 1
            self._bytes += attributes.size
        elif stat.S_ISLNK(attributes.mode):
            target = self._tree.readlink(node)
            nid = self._writer.data(_inode(attributes, len(target)), self._xattrs(node, {}), target)
            self._other += 1
        else:
            nid = self._special(name, node, attributes)
            self._other += 1
        if linked:
            self._links[node.identity] = nid
        return nid

    def _special(self, name: bytes, node: Node, attributes: Attributes) -> int:
        if stat.S_ISCHR(attributes.mode) and not attributes.rdev:
            self._fuse_only.add(_WHITEOUT, self._path(name))
        return self._writer.special(_inode(attributes, 0), self._xattrs(node, {}))

    def _file(self, name: bytes, node: Node, attributes: Attributes) -> int:
        inode = _inode(attributes, attributes.size)
        if not inode.size:
            return self._writer.special(inode, self._xattrs(node, {}))
        copied = inode.size <= self._options.copy_up_to
        if not (self._options.verify or copied) and (path := self._tree.real_path(node)):
            redirect = self._roots.redirect(path)
            if redirect is not None:
                return self._redirected(inode, node, redirect)
        return self._opened_file(name, inode, node)

    def _opened_file(self, name: bytes, inode: Inode, node: Node) -> int:
        file = self._opened(node)
        try:
            place = place_of(file, inode.size)
            if not isinstance(place, Whole):
                return self._of_parts(name, inode, node, place)
            if inode.size <= self._options.copy_up_to:
                return self._copied(inode, node, place, file.extents[0].fd)
            redirect = self._roots.redirect(place.path)
            if redirect is None:
                self._fuse_only.add(_AMBIGUOUS, self._path(name))
                place = [FileRun(place.path, file.extents[0].fd, 0, place.size)]
                return self._listed(inode, node, place)
            fd = file.extents[0].fd
            verity = verity_of(fd) if self._options.digest else None
            self._verity += verity is not None
            nid = self._redirected(inode, node, redirect, mark_of(verity))
            if self._options.verify:
                self._records.add(nid, place, fd)
            return nid
        finally:
            file.close()

    def _redirected(self, inode: Inode, node: Node, redirect: bytes, mark: bytes = b"") -> int:
        """Write a file whose bytes are those of a whole real file."""
        marks = {_xattrs.METACOPY: mark, _xattrs.REDIRECT: redirect}
        return self._writer.hole(inode, self._xattrs(node, marks))

    def _copied(self, inode: Inode, node: Node, place: Whole, fd: int) -> int:
        """Write a file whose bytes the image holds, all those of the open file `fd`."""
        xattrs = self._xattrs(node, {})
        whole = FileRun(b"", fd, 0, inode.size)
        data = self._chunks.copied([whole], inode.size)
        chunks = self._chunks.copy(whole) if data is None else None
        found = os.fstat(fd)
        if (found.st_size, found.st_mtime_ns) != (place.size, place.mtime_ns):
            raise NotFreezableError(CHANGED)
        if chunks is not None:
            return self._writer.chunked(inode, xattrs, *chunks)
        return self._writer.data(inode, xattrs, data or b"")

    def _of_parts(self, name: bytes, inode: Inode, node: Node, parts: Sequence[FileRun]) -> int:
        data = self._chunks.copied(parts, inode.size)
        if data is not None:
            return self._writer.data(inode, self._xattrs(node, {}), data)
        chunks = self._chunks.of(parts, inode.size)
        if chunks is not None:
            return self._writer.chunked(inode, self._xattrs(node, {}), *chunks)
        self._fuse_only.add(_UNMAPPED, self._path(name))
        return self._listed(inode, node, parts)

    def _listed(self, inode: Inode, node: Node, parts: Sequence[FileRun]) -> int:
        """Write a file as a list of pieces, which only FUSE can serve."""
        value = _xattrs.PIECES_VALUE.pack(*self._pieces.add(parts))
        return self._writer.hole(inode, self._xattrs(node, {_xattrs.PIECES: value}))

    def _opened(self, node: Node) -> BackingFile:
        """Open a file; one that is being decompressed is waited for."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                return self._tree.open(node)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _xattrs(self, node: Node, marks: dict[bytes, bytes]) -> bytes:
        """Return the extended attributes of a node and the marks of the image, encoded."""
        try:
            names = self._tree.listxattr(node)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            names = ()
        found = {_xattrs.escaped(name): self._tree.getxattr(node, name) for name in names}
        self._escaped |= any(name.startswith(_xattrs.OVERLAY) for name in names)
        try:
            return _xattrs.encode(found | marks)
        except ValueError as error:
            raise NotFreezableError(str(error)) from error

    def _path(self, name: bytes) -> bytes:
        return b"/".join([*(frame.name for frame in self._frames[1:]), name])

    def _finish(self) -> About:
        fuse_only = self._fuse_only.all
        devices = self._devices.all
        # Overlayfs alone shows an escaped attribute as it was, and it mounts nothing without a
        # second layer.
        roots = self._roots.all or ([b"/"] if self._escaped else [])
        if not roots:
            fuse_only = [one for one in fuse_only if one.reason != _WHITEOUT]
        reasons = [_text(one) for one in fuse_only]
        if self._devices.are_too_many():
            reasons.append(f"its files lie in {len(devices)} others: EROFS has room for fewer")
        kept = [] if reasons else [device.size for device in devices]
        now = time.time_ns()
        self._writer.finish(kept, now)
        return About(
            source=self._options.source,
            roots=roots,
            devices=devices,
            files=self._files,
            directories=self._directories,
            other=self._other,
            data_bytes=self._bytes,
            copied_bytes=self._chunks.copied_bytes,
            frozen_ns=now,
            fuse_only=reasons,
            pieces=Table(*self._writer.append(self._pieces.encoded)),
            records=Table(*self._writer.append(self._records.encoded)),
            digests=self._options.digest,
            verity=self._verity,
        )


def _inode(attributes: Attributes, size: int) -> Inode:
    return Inode(
        attributes.mode,
        attributes.nlink,
        attributes.uid,
        attributes.gid,
        attributes.rdev,
        size,
        attributes.mtime_ns,
    )


def _unreadable(why: str) -> str:
    return f"it cannot be read: {why}"


def _refusal(reasons: Sequence[Reason]) -> str:
    first = reasons[0]
    count = sum(reason.count for reason in reasons)
    return (
        f"{count} {'entry' if count == 1 else 'entries'} cannot be frozen, the first is"
        f" {os.fsdecode(first.example)!r}: {first.reason}"
    )


def _text(reason: Reason) -> str:
    example = os.fsencode(repr(os.fsdecode(reason.example))).decode("utf-8", "backslashreplace")
    return f"{reason.count} such as {example}: {reason.reason}"
