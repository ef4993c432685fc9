"""Lists the changes of an upper layer against the layers below it, and writes them as a layer.

The layer has the form of OCI images: `.wh.NAME` for a removed name, `.wh..wh..opq` in a directory
that shows nothing of the layers below. Works on the directories, beside a mount or without one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from zcfuse.datapath import OPAQUE_NAME, WHITEOUT_PREFIX
from zcfuse.tree._types import Attributes, Node, Tree
from zcfuse.tree._union import Union

ADDED: Final = "added"
CHANGED: Final = "changed"
REMOVED: Final = "removed"
RENAMED: Final = "renamed"

_NAMESPACES: Final = ("trusted.overlay.", "user.overlay.")
_REDIRECT: Final = "trusted.overlay.redirect"
_METACOPY: Final = "trusted.overlay.metacopy"
_FOLLOWED: Final = frozenset({_REDIRECT, _METACOPY})
_NOT_FOLLOWED: Final = ("user.overlay.redirect", "user.overlay.metacopy")
_XATTR: Final = "SCHILY.xattr."  # as GNU tar and Docker write extended attributes (PAX)


class Change(NamedTuple):
    """One name that differs: ADDED, CHANGED, REMOVED or RENAMED, and the path from the root.

    `before`: the path that a RENAMED directory had.
    """

    kind: str
    path: bytes
    before: bytes = b""


class _Entry(NamedTuple):
    """A name of an upper layer, which `where` has. `hides`: it is a whiteout, or opaque.

    `lacks_bytes`: it is a metacopy, and a layer below has the bytes. `redirect`: where the layers
    below have the rest of a directory, or empty.
    """

    path: bytes
    where: bytes
    status: os.stat_result
    hides: bool
    lacks_bytes: bool = False
    redirect: bytes = b""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_whiteout(self) -> bool:
        return self.hides and not self.is_directory


def union_changes(upper: str, lower: Tree) -> Iterator[Change]:
    """List what an upper layer changes, sorted within each directory.

    A copied file that still equals its original does not count. The changes in a renamed directory
    are those since its rename.

    Parameters:
        upper: the directory.
        lower: a union of the layers below it.

    Raises:
        OSError: EXDEV for a mark that is not followed.
    """
    return _Comparison(os.fsencode(upper), lower).changes()


class _Comparison:
    """An upper layer beside the union of the layers below it."""

    def __init__(self, upper: bytes, lower: Tree) -> None:
        self._upper = upper
        self._lower = lower
        # The paths of directories that have another name now.
        self._moved: set[bytes] = set()

    def changes(self) -> Iterator[Change]:
        root = self._lower.root
        self._moved = set(self._redirected(b"", root, b""))
        return self._changes(b"", root, b"", covered=False)

    def _redirected(self, above: bytes, directory: Node | None, before: bytes) -> Iterator[bytes]:
        for entry in _entries(self._upper, above):
            if entry.is_directory:
                found = self._below(entry, directory, before)
                if entry.redirect and found is not None:
                    yield found[0]
                node, path = _directory_of(found)
                yield from self._redirected(entry.path, node, path)

    def _changes(
        self, above: bytes, directory: Node | None, before: bytes, *, covered: bool
    ) -> Iterator[Change]:
        """Compare a directory with that of the layers, which has the path `before` there."""
        entries = {os.path.basename(one.path): one for one in _entries(self._upper, above)}
        names = set(entries)
        if covered and directory is not None:
            names |= {name for name, _ in _listed(self._lower, directory)}
        for name in sorted(names):
            path = os.path.join(above, name)
            entry = entries.get(name)
            if entry is None or entry.is_whiteout:
                was = os.path.join(before, name)
                below = None if directory is None else _found(self._lower, directory, name)
                if below is not None and was not in self._moved:
                    yield Change(REMOVED, path)
                continue
            found = self._below(entry, directory, before)
            yield from self._compared(entry, found)
            if entry.is_directory:
                node, was = _directory_of(found)
                yield from self._changes(path, node, was, covered=entry.hides or covered)

    def _compared(
        self, entry: _Entry, found: tuple[bytes, Node, Attributes] | None
    ) -> Iterator[Change]:
        if found is None:
            yield Change(ADDED, entry.path)
            return
        before, node, attributes = found
        if entry.redirect and before != entry.path:
            yield Change(RENAMED, entry.path, before)
        if _differs(entry, self._lower, node, attributes):
            yield Change(CHANGED, entry.path)

    def _below(
        self, entry: _Entry, directory: Node | None, before: bytes
    ) -> tuple[bytes, Node, Attributes] | None:
        """Return what the layers have for a name of a directory: its path there, and what it is."""
        names = (entry.redirect or os.path.basename(entry.path)).lstrip(b"/").split(b"/")
        if entry.redirect.startswith(b"/"):
            directory, before = self._lower.root, b""
        found = None
        for name in names:
            found = None if directory is None else _found(self._lower, directory, name)
            if found is None:
                return None
            directory, before = found[0], os.path.join(before, name)
        return None if found is None else (before, *found)


def _directory_of(found: tuple[bytes, Node, Attributes] | None) -> tuple[Node | None, bytes]:
    """Return the directory that merges with another one, and its path."""
    if found is None or not stat.S_ISDIR(found[2].mode):
        return None, b""
    return found[1], found[0]


def write_layer_directory(upper: str, into: str, union: Union | None = None) -> None:
    """Write an upper layer as a layer into an empty directory, with owners and times.

    A renamed directory of a layer becomes an opaque one with everything that it shows.

    Parameters:
        upper: the directory.
        into: the directory to fill.
        union: a read-only union of it and the layers below it, for metacopies and redirects.

    Raises:
        OSError: EXDEV for a redirect or a metacopy without a union, or one that is not followed;
            whatever the filesystem refuses.
    """
    links: dict[tuple[int, int], bytes] = {}
    target = os.fsencode(into)
    directories = [(target, os.stat(upper))]
    for entry in _all_entries(os.fsencode(upper), b"", union):
        place = os.path.join(target, entry.path)
        if entry.is_directory:
            os.mkdir(place)
            directories.append((place, entry.status))
            if entry.hides:
                _touch(os.path.join(place, OPAQUE_NAME))
            _copy_xattrs(entry.where, place)
        elif entry.hides:
            _touch(_whiteout_of(place))
        else:
            first = links.setdefault((entry.status.st_dev, entry.status.st_ino), place)
            if first != place:
                os.link(first, place, follow_symlinks=False)
                continue
            _copy(entry, union, place)
            _settle(place, entry.status)
    for place, status in reversed(directories):
        _settle(place, status)


def write_layer_tar(upper: str, into: BinaryIO, union: Union | None = None) -> None:
    """Write an upper layer as a tar archive, with owners, times and extended attributes.

    The parameters and errors are those of `write_layer_directory`.
    """
    import tarfile  # a mount needs none of it

    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in _all_entries(os.fsencode(upper), b"", union):
            path = os.fsdecode(entry.path)
            if entry.is_whiteout:
                archive.addfile(tarfile.TarInfo(os.fsdecode(_whiteout_of(entry.path))))
                continue
            info = archive.gettarinfo(os.fsdecode(entry.where), path)
            if info is None:  # a socket
                continue
            info.pax_headers = {
                _XATTR + name: value.decode("utf-8", "surrogateescape")
                for name, value in _xattrs(entry.where)
            }
            # Exact; TarInfo.mtime is a float.
            seconds, nanoseconds = divmod(entry.status.st_mtime_ns, 10**9)
            info.pax_headers["mtime"] = f"{seconds}.{nanoseconds:09d}"
            if info.isreg():
                with open(_bytes_of(entry, union), "rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
            if entry.is_directory and entry.hides:
                archive.addfile(tarfile.TarInfo(os.path.join(path, os.fsdecode(OPAQUE_NAME))))


def _all_entries(upper: bytes, above: bytes, union: Union | None) -> Iterator[_Entry]:
    """Yield the names of an upper layer, with those that a redirected directory shows."""
    for entry in _entries(upper, above):
        if entry.redirect:
            directory = None if union is None else _walk(union, entry.path)
            if union is None or directory is None:
                raise OSError(errno.EXDEV, f"{_REDIRECT}: a layer is no directory", entry.where)
            yield entry._replace(hides=True)
            yield from _shown(union, directory, entry.path)
            continue
        yield entry
        if entry.is_directory:
            yield from _all_entries(upper, entry.path, union)


def _shown(union: Union, directory: Node, above: bytes) -> Iterator[_Entry]:
    """Yield everything that a directory of a union shows."""
    for name in sorted(name for name, _ in _listed(union, directory)):
        node, attributes = union.lookup(directory, name)
        where = union.top_path(node)
        if where is None:
            raise OSError(errno.EXDEV, "a layer is no directory", os.path.join(above, name))
        lacks_bytes = union.real_path(node) != where
        yield _Entry(os.path.join(above, name), where, os.lstat(where), False, lacks_bytes)
        if stat.S_ISDIR(attributes.mode):
            yield from _shown(union, node, os.path.join(above, name))


def _walk(union: Union, path: bytes) -> Node:
    node: Node = union.root
    for name in path.split(b"/"):
        node, _ = union.lookup(node, name)
    return node


def _entries(upper: bytes, above: bytes) -> Iterator[_Entry]:
    """Yield the names of one directory, sorted; a `.wh.` name as the name that it hides."""
    directory = os.path.join(upper, above)
    for name in sorted(os.listdir(directory)):
        where = os.path.join(directory, name)
        if name == OPAQUE_NAME:
            continue
        status = os.lstat(where)
        if name.startswith(WHITEOUT_PREFIX):
            yield _Entry(
                os.path.join(above, name.removeprefix(WHITEOUT_PREFIX)), where, status, True
            )
            continue
        hides = _hides(where, status)
        marks = _followed_marks(where, status)
        merges = stat.S_ISDIR(status.st_mode) and not hides
        redirect = marks.get(_REDIRECT, b"") if merges else b""
        lacks_bytes = _METACOPY in marks
        yield _Entry(os.path.join(above, name), where, status, hides, lacks_bytes, redirect)


def _followed_marks(where: bytes, status: os.stat_result) -> dict[str, bytes]:
    """Return the marks that refer to other layers; raise EXDEV for one that is not followed."""
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return {}
    found = set(os.listxattr(where, follow_symlinks=False))
    for mark in _NOT_FOLLOWED:
        if mark in found:
            raise OSError(errno.EXDEV, f"{mark}: it refers to another layer", where)
    return {mark: os.getxattr(where, mark, follow_symlinks=False) for mark in found & _FOLLOWED}


def _bytes_of(entry: _Entry, union: Union | None) -> bytes:
    """Return the path of the file that has the bytes of a regular file."""
    if not entry.lacks_bytes:
        return entry.where
    path = None if union is None else union.real_path(_walk(union, entry.path))
    if path is None:
        raise OSError(errno.EXDEV, "a metacopy: its bytes are in another layer", entry.where)
    return path


def _hides(where: bytes, status: os.stat_result) -> bool:
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return True
    kind = stat.S_IFMT(status.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    if kind == stat.S_IFREG:
        return status.st_size == 0 and _mark(where, "whiteout") is not None
    opaque = _mark(where, "opaque") == b"y"
    return opaque or os.path.lexists(os.path.join(where, OPAQUE_NAME))


def _mark(where: bytes, mark: str) -> bytes | None:
    for namespace in _NAMESPACES:
        with contextlib.suppress(OSError):
            return os.getxattr(where, namespace + mark, follow_symlinks=False)
    return None


def _listed(lower: Tree, directory: Node) -> Iterator[tuple[bytes, Attributes]]:
    listing = lower.listing(directory)
    try:
        for _, name, _, attributes in listing.entries(0):
            if name not in (b".", b".."):
                yield name, attributes
    finally:
        listing.close()


def _found(lower: Tree, directory: Node, name: bytes) -> tuple[Node, Attributes] | None:
    try:
        return lower.lookup(directory, name)
    except FileNotFoundError:
        return None


def _differs(entry: _Entry, lower: Tree, node: Node, below: Attributes) -> bool:
    status = entry.status
    if (status.st_mode, status.st_uid, status.st_gid) != (below.mode, below.uid, below.gid):
        return True
    if stat.S_ISREG(below.mode) and (status.st_size, status.st_mtime_ns) != (
        below.size,
        below.mtime_ns,
    ):
        return True
    if stat.S_ISLNK(below.mode) and os.readlink(entry.where) != lower.readlink(node):
        return True
    theirs = {os.fsdecode(name): lower.getxattr(node, name) for name in lower.listxattr(node)}
    return dict(_xattrs(entry.where)) != theirs


def _xattrs(where: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the extended attributes, without the marks of the layer itself."""
    for name in os.listxattr(where, follow_symlinks=False):
        if not name.startswith(_NAMESPACES):
            yield name, os.getxattr(where, name, follow_symlinks=False)


def _whiteout_of(path: bytes) -> bytes:
    return os.path.join(os.path.dirname(path), WHITEOUT_PREFIX + os.path.basename(path))


def _touch(path: bytes) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def _copy(entry: _Entry, union: Union | None, place: bytes) -> None:
    status = entry.status
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(entry.where), place)
    elif stat.S_ISREG(status.st_mode):
        with open(_bytes_of(entry, union), "rb") as source, open(place, "xb") as copy:
            _copy_bytes(source.fileno(), copy.fileno(), status.st_size)
    else:
        os.mknod(place, status.st_mode, status.st_rdev)
    _copy_xattrs(entry.where, place)


def _copy_bytes(source: int, copy: int, size: int) -> None:
    """Copy in the kernel where it can, and leave holes out."""
    os.truncate(copy, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            copied = os.copy_file_range(source, copy, end - at, at, at)
            if copied == 0:
                return
            at += copied


def _copy_xattrs(where: bytes, place: bytes) -> None:
    status = os.lstat(where)
    os.chown(place, status.st_uid, status.st_gid, follow_symlinks=False)
    for name, value in _xattrs(where):
        os.setxattr(place, name, value, follow_symlinks=False)


def _settle(place: bytes, status: os.stat_result) -> None:
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(place, stat.S_IMODE(status.st_mode))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
