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

from zcfuse.tree._types import Attributes, Node, Tree
from zcfuse.tree._union_marks import OCI_OPAQUE, OCI_PREFIX

ADDED: Final = "added"
CHANGED: Final = "changed"
REMOVED: Final = "removed"

_NAMESPACES: Final = ("trusted.overlay.", "user.overlay.")
_XATTR: Final = "SCHILY.xattr."  # as GNU tar and Docker write extended attributes (PAX)


class Change(NamedTuple):
    """One name that differs: ADDED, CHANGED or REMOVED, and the path from the root."""

    kind: str
    path: bytes


class _Entry(NamedTuple):
    """A name of an upper layer. `hides`: it is a whiteout, or an opaque directory.

    `lacks_bytes`: it is a metacopy, and a layer below has the bytes.
    """

    path: bytes
    where: bytes
    status: os.stat_result
    hides: bool
    lacks_bytes: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def union_changes(upper: str, lower: Tree) -> Iterator[Change]:
    """List what an upper layer changes, sorted within each directory.

    A copied file that still equals its original does not count.

    Parameters:
        upper: the directory.
        lower: a union of the layers below it.

    Raises:
        OSError: EXDEV for a redirect, or a metacopy that is not followed.
    """
    return _changes(os.fsencode(upper), b"", lower, lower.root, False)


def _changes(
    upper: bytes, above: bytes, lower: Tree, directory: Node | None, covered: bool
) -> Iterator[Change]:
    entries = {os.path.basename(one.path): one for one in _entries(upper, above)}
    names = set(entries)
    if covered and directory is not None:
        names |= {name for name, _ in _listed(lower, directory)}
    for name in sorted(names):
        path = os.path.join(above, name)
        below = None if directory is None else _found(lower, directory, name)
        entry = entries.get(name)
        if entry is None or (entry.hides and not entry.is_directory):
            if below is not None:
                yield Change(REMOVED, path)
            continue
        if below is None:
            yield Change(ADDED, path)
        elif _differs(entry, lower, *below):
            yield Change(CHANGED, path)
        if entry.is_directory:
            merged = below[0] if below is not None and stat.S_ISDIR(below[1].mode) else None
            yield from _changes(upper, path, lower, merged, entry.hides or covered)


def write_layer_directory(upper: str, into: str, lower: Tree | None = None) -> None:
    """Write an upper layer as a layer into an empty directory, with owners and times.

    Parameters:
        upper: the directory.
        into: the directory to fill.
        lower: a union of the layers below it, which has the bytes of metacopies.

    Raises:
        OSError: EXDEV for a redirect, or a metacopy whose bytes are not found; whatever the
            filesystem refuses.
    """
    links: dict[tuple[int, int], bytes] = {}
    target = os.fsencode(into)
    directories = [(target, os.stat(upper))]
    for entry in _all_entries(os.fsencode(upper), b""):
        place = os.path.join(target, entry.path)
        if entry.is_directory:
            os.mkdir(place)
            directories.append((place, entry.status))
            if entry.hides:
                _touch(os.path.join(place, OCI_OPAQUE))
            _copy_xattrs(entry.where, place)
        elif entry.hides:
            _touch(_whiteout_of(place))
        else:
            first = links.setdefault((entry.status.st_dev, entry.status.st_ino), place)
            if first != place:
                os.link(first, place, follow_symlinks=False)
                continue
            _copy(entry, lower, place)
            _settle(place, entry.status)
    for place, status in reversed(directories):
        _settle(place, status)


def write_layer_tar(upper: str, into: BinaryIO, lower: Tree | None = None) -> None:
    """Write an upper layer as a tar archive, with owners, times and extended attributes.

    The parameters and errors are those of `write_layer_directory`.
    """
    import tarfile  # a mount needs none of it

    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in _all_entries(os.fsencode(upper), b""):
            path = os.fsdecode(entry.path)
            if entry.hides and not entry.is_directory:
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
                with open(_bytes_of(entry, lower), "rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
            if entry.is_directory and entry.hides:
                archive.addfile(tarfile.TarInfo(os.path.join(path, os.fsdecode(OCI_OPAQUE))))


def _all_entries(upper: bytes, above: bytes) -> Iterator[_Entry]:
    for entry in _entries(upper, above):
        yield entry
        if entry.is_directory:
            yield from _all_entries(upper, entry.path)


def _entries(upper: bytes, above: bytes) -> Iterator[_Entry]:
    """Yield the names of one directory, sorted; a `.wh.` name as the name that it hides."""
    directory = os.path.join(upper, above)
    for name in sorted(os.listdir(directory)):
        where = os.path.join(directory, name)
        if name == OCI_OPAQUE:
            continue
        status = os.lstat(where)
        if name.startswith(OCI_PREFIX):
            yield _Entry(os.path.join(above, name.removeprefix(OCI_PREFIX)), where, status, True)
            continue
        lacks_bytes = _lacks_bytes(where, status)
        yield _Entry(os.path.join(above, name), where, status, _hides(where, status), lacks_bytes)


def _lacks_bytes(where: bytes, status: os.stat_result) -> bool:
    """Say whether it is a metacopy; raise EXDEV for a mark that is not followed."""
    if stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    found = set(os.listxattr(where, follow_symlinks=False))
    for mark in ("trusted.overlay.redirect", "user.overlay.redirect", "user.overlay.metacopy"):
        if mark in found:
            raise OSError(errno.EXDEV, f"{mark}: it refers to another layer", where)
    return "trusted.overlay.metacopy" in found


def _bytes_of(entry: _Entry, lower: Tree | None) -> bytes:
    """Return the path of the file that has the bytes of a regular file."""
    if not entry.lacks_bytes:
        return entry.where
    path = None
    if lower is not None:
        node = lower.root
        for name in entry.path.split(b"/"):
            node, _ = lower.lookup(node, name)
        path = lower.real_path(node)
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
    return opaque or os.path.lexists(os.path.join(where, OCI_OPAQUE))


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
    return os.path.join(os.path.dirname(path), OCI_PREFIX + os.path.basename(path))


def _touch(path: bytes) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def _copy(entry: _Entry, lower: Tree | None, place: bytes) -> None:
    status = entry.status
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(entry.where), place)
    elif stat.S_ISREG(status.st_mode):
        with open(_bytes_of(entry, lower), "rb") as source, open(place, "xb") as copy:
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
