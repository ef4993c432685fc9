"""The contents of an index and of a directory, as comparable values."""

import io
import os
import stat
import subprocess
import tarfile
from typing import NamedTuple

from zcfuse.tree.archive import ArchiveError, Keep, Kind, index_archive, unpack

TAR_SECONDS = 30
BLOCK = 64 * 1024


class Seen(NamedTuple):
    """One name of a tree; `file` is equal for hard links."""

    mode: int
    mtime: int
    content: bytes | None
    nlink: int


def opened(path, **arguments):
    """Return the index of an archive without keeping it."""
    return index_archive(path, keep=Keep.NOT, **arguments)


def opened_or_refused(path, **arguments):
    """Return the index of an archive, or None if it was refused with one line."""
    try:
        return opened(path, **arguments)
    except ArchiveError as error:
        if len(str(error).splitlines()) != 1:
            raise
        return None


def content(index, node, fd):
    member = index.member(node)
    if member.kind == Kind.SYMLINK:
        return index.readlink(node)
    if member.kind in (Kind.DEFLATED, Kind.BZIP2, Kind.LZMA):
        pieces = []
        unpack(fd, member, pieces.append)
        return b"".join(pieces)
    pieces = []
    for run in index.runs(node):
        found = bytes(run.length) if run.offset is None else os.pread(fd, run.length, run.offset)
        assert len(found) == run.length
        pieces.append(found)
    return b"".join(pieces)


def nodes(index, directory=0, above=b""):
    """Yield (path, node) of everything below a directory."""
    names = []
    for name, node in index.list(directory):
        assert index.lookup(directory, name) == node
        names.append(name)
        yield above + name, node
        if index.member(node).kind == Kind.DIRECTORY:
            yield from nodes(index, node, above + name + b"/")
    assert names == sorted(set(names))


def shown(index):
    """Return the contents of an index: {path: Seen}, and the paths of each hard-linked file."""
    fd = index.open()
    try:
        seen, names = {}, {}
        for path, node in nodes(index):
            member = index.member(node)
            directory = stat.S_ISDIR(member.mode)
            bytes_ = None if directory else content(index, node, fd)
            assert directory or len(bytes_) == member.size
            nlink = 0 if directory else member.nlink
            seen[path] = Seen(member.mode, member.mtime_ns // 10**9, bytes_, nlink)
            names.setdefault(node, []).append(path)
        return seen, links(names)
    finally:
        os.close(fd)


def links(names):
    return {tuple(sorted(group)) for group in names.values() if len(group) > 1}


def held(directory):
    """Return the contents of a directory, in the same form."""
    root = os.fsencode(directory)
    seen, names = {}, {}
    for above, below, files in os.walk(root):
        for name in [*below, *files]:
            path = os.path.join(above, name)
            found = os.lstat(path)
            bytes_ = None
            if stat.S_ISLNK(found.st_mode):
                bytes_ = os.readlink(path)
            elif stat.S_ISREG(found.st_mode):
                with open(path, "rb") as file:
                    bytes_ = file.read()
            relative = os.path.relpath(path, root)
            nlink = 0 if bytes_ is None else found.st_nlink
            seen[relative] = Seen(found.st_mode, int(found.st_mtime), bytes_, nlink)
            if bytes_ is not None:
                names.setdefault(found.st_ino, []).append(relative)
    return seen, links(names)


def extracted(archive, directory):
    """Return what GNU tar extracts from an archive."""
    os.makedirs(directory, exist_ok=True)
    subprocess.run(
        ["tar", "-xpf", os.fspath(archive), "-C", os.fspath(directory), "--same-permissions"],
        check=True,
        capture_output=True,
        timeout=TAR_SECONDS,
    )
    return held(directory)


def tar(archive, directory, *options):
    """Pack a directory with GNU tar."""
    subprocess.run(
        ["tar", "-cf", os.fspath(archive), *options, "-C", os.fspath(directory), "."],
        check=True,
        capture_output=True,
        timeout=TAR_SECONDS,
    )


def make_holes(path, pieces, size):
    """Write 64 KiB of noise at each of `pieces`, counted in such blocks."""
    with open(path, "wb") as file:
        file.truncate(size)
        for piece in pieces:
            file.seek(piece * BLOCK)
            file.write(os.urandom(BLOCK))


def member(name, kind=tarfile.REGTYPE, link="", data=b"", **fields):
    """Return (header, data) for write()."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.size = kind, link, len(data)
    header.mtime = 1_700_000_000
    header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
    for field, value in fields.items():
        setattr(header, field, value)
    return header, data


def write(path, *members, format=tarfile.PAX_FORMAT):
    """Write a tar archive of unchecked members."""
    with tarfile.open(path, "w", format=format, errors="surrogateescape") as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))
    return path


def directory(name, **fields):
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name, target):
    return member(name, tarfile.SYMTYPE, target)


def hard_link(name, target):
    return member(name, tarfile.LNKTYPE, target)


def paths(index):
    return {path for path, _ in nodes(index)}


def reasons(index):
    return {note.reason: note.count for note in index.notes}
