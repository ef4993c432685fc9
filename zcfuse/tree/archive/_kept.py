"""Indexes kept between mounts: beside the archive, or in the user's cache.

A kept index has a header, the sections, and a table with one CRC-32 per block of the sections. It
is written under another name and renamed when complete, so readers find the old or the new one; of
two concurrent writers the later wins. Opening one reads only the header, the table and the meta
section.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
import zlib
from array import array
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import BinaryIO, Final

import msgspec

from zcfuse.tree.archive._errors import DamagedIndexError, StaleIndexError
from zcfuse.tree.archive._format import ENTRY, FORMAT_VERSION, NODE, PIECE, SECTIONS
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._index import ArchiveIndex, Tables
from zcfuse.tree.archive._place import ArchivePlace
from zcfuse.tree.archive._reader import read_at
from zcfuse.tree.archive._sections import (
    BLOCK_BYTES,
    CheckedFile,
    blocks_of,
)

SUFFIX: Final = ".zcidx"
MAGIC: Final = b"zcindex\n"

HEADER: Final = Struct("<8sII QQQqq 32s 6Q II")
"""Magic, version, bytes of a block; device, inode, size, mtime_ns, ctime_ns, SHA-256 of the path;
sizes of the sections; CRC-32 of the table, CRC-32 of the header up to here."""

HEADER_CHECKED: Final = HEADER.size - 4

SMALL_INDEX: Final = 256 * 1024
"""Indexes up to this size (bytes) are read at once, so that many shards cost no descriptors."""

_CACHE: Final = b"/zcfuse/archives/"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

RECORD_SIZES: Final = (ENTRY.size, NODE.size, PIECE.size, 1, 1, 1)


def beside(archive: bytes) -> bytes:
    """Return the place of an index beside its archive."""
    return archive + SUFFIX.encode()


def in_cache(archive: bytes) -> bytes:
    """Return the place of an index in the user's cache directory (XDG Base Directory)."""
    cache = os.environb.get(b"XDG_CACHE_HOME", b"")
    if not cache.startswith(b"/"):
        cache = os.path.expanduser(b"~/.cache")
    name = hashlib.sha256(archive).hexdigest()[:32] + SUFFIX
    return os.path.join(cache, b"zcfuse", b"archives", name.encode())


def keep(place: bytes, identity: ArchiveIdentity, sections: Mapping[str, bytes]) -> None:
    """Write an index to its place, whole or not at all. Raises OSError."""
    with _replacing(place) as file:
        file.seek(HEADER.size)
        sums = array("I")
        for block in blocks_of(sections[name] for name in SECTIONS):
            sums.append(zlib.crc32(block))
            file.write(block)
        file.write(sums)
        file.seek(0)
        file.write(_header(identity, sections, sums))


def copy(source: bytes, place: bytes) -> None:
    """Keep an index in a further place, whole or not at all. Raises OSError."""
    with open(os.open(source, _READ), "rb") as kept, _replacing(place) as file:
        shutil.copyfileobj(kept, file)


@contextlib.contextmanager
def _replacing(place: bytes) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` after a write without an error."""
    if _CACHE in place:
        _make_private(os.path.dirname(place))
    temporary = place + b"." + secrets.token_hex(8).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(temporary, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)  # whatever the umask
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _make_private(directory: bytes) -> None:
    """Create the cache directory if missing, with mode 0700 whatever the umask.

    Raises OSError: EPERM if its last two parts are symbolic links or belong to another user.
    """
    above = os.path.dirname(directory)
    os.makedirs(os.path.dirname(above), mode=0o700, exist_ok=True)
    for path in (above, directory):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "not a directory of this user", path)


def load(kept: bytes, place: ArchivePlace, identity: ArchiveIdentity, owner: int) -> ArchiveIndex:
    """Return the index kept as `kept` for the archive, which belongs to the user `owner`.

    Raises FileNotFoundError without one, StaleIndexError with the reason if it is unusable, OSError
    if it is unreadable.
    """
    fd = os.open(kept, _READ)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid(), owner):
            raise StaleIndexError("it is not a file of the user, of the archive's owner or of root")
        sizes, sums = _read_header(fd, status.st_size, identity)
        body = CheckedFile(fd, HEADER.size, sum(sizes), memoryview(sums))
        stack.pop_all()
    try:
        return _index(body, sizes, place, identity, os.fsdecode(kept))
    except (DamagedIndexError, msgspec.DecodeError) as error:
        body.close()
        raise StaleIndexError(f"it is damaged ({error})") from error


def _index(
    body: CheckedFile,
    sizes: tuple[int, ...],
    place: ArchivePlace,
    identity: ArchiveIdentity,
    kept: str,
) -> ArchiveIndex:
    """Return the index over a kept file; reads a small one whole and closes the file."""
    places = [(sum(sizes[:number]), size) for number, size in enumerate(sizes)]
    *tables, meta, points = places

    def load() -> Tables:
        entries, nodes, pieces, names = (body.read(*place) for place in tables)
        return entries, nodes, pieces, names

    size = sum(sizes[: len(tables)])
    names = sizes[0] // ENTRY.size
    small = sum(sizes) <= SMALL_INDEX
    found = body.read(*points) if small else b""
    index = ArchiveIndex(
        place,
        identity,
        body.read(*meta),
        load,
        size,
        names,
        points=(lambda: found) if small else (lambda: body.read(*points)),
        kept=kept,
        close=body.close,
    )
    if small:
        index.load()
        body.close()
    return index


def _header(identity: ArchiveIdentity, sections: Mapping[str, bytes], sums: array[int]) -> bytes:
    sizes = [len(sections[name]) for name in SECTIONS]
    header = HEADER.pack(
        MAGIC, FORMAT_VERSION, BLOCK_BYTES, *_key(identity), *sizes, zlib.crc32(sums), 0
    )[:HEADER_CHECKED]
    return header + zlib.crc32(header).to_bytes(4, "little")


def _key(identity: ArchiveIdentity) -> tuple[int | bytes, ...]:
    """Return the identity in a kept index."""
    return (
        identity.device,
        identity.inode,
        identity.size,
        identity.mtime_ns,
        identity.ctime_ns,
        hashlib.sha256(identity.path).digest(),
    )


def _read_header(
    fd: int, size: int, identity: ArchiveIdentity
) -> tuple[tuple[int, ...], array[int]]:
    """Return the sizes of the sections and the table of sums, both checked."""
    header = read_at(fd, HEADER.size, 0)
    if len(header) < HEADER.size or not header.startswith(MAGIC):
        raise StaleIndexError("it is not an index")
    _, version, block, *fields, table_sum, header_sum = HEADER.unpack(header)
    if version != FORMAT_VERSION or block != BLOCK_BYTES:
        raise StaleIndexError("its format is that of another version of this program")
    if zlib.crc32(header[:HEADER_CHECKED]) != header_sum:
        raise StaleIndexError("its header is damaged")
    if tuple(fields[:6]) != _key(identity):
        raise StaleIndexError("the archive has changed since")
    sizes = tuple(fields[6:])
    if any(length % record for length, record in zip(sizes, RECORD_SIZES, strict=True)):
        raise StaleIndexError("its sections have sizes that they cannot have")
    total = sum(sizes)
    table = 4 * -(-total // BLOCK_BYTES)
    if size != HEADER.size + total + table:
        raise StaleIndexError("it is shorter or longer than it says")
    sums = array("I", read_at(fd, table, HEADER.size + total))
    if 4 * len(sums) != table or zlib.crc32(sums) != table_sum:
        raise StaleIndexError("its table of sums is damaged")
    return sizes, sums
