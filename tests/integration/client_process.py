"""A client of a mount: a process that runs what a test sends it, below one directory.

``main(ROOT, UID)``: each line of standard input is the ascii() of Python source. Each line of
standard output is the answer: the repr of ("value", ...), ("errno", name) or ("error", text). The
same source runs on the mount and on the backing directory, so a test compares the two. It uses only
the standard library, so an ordinary user can run it. The tests start thousands of clients, so that
modules which take long to import are imported when somebody needs them.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import mmap
import os
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

SYS_OPENAT2: Final = 437
SYS_GETDENTS64: Final = 217
RESOLVE_NO_SYMLINKS: Final = 0x04
_PAGE: Final = 4096
_DIRENT: Final = struct.Struct("=QqHB")
_LATE_MODULES: Final = ("random", "socket")

libc = ctypes.CDLL(None, use_errno=True)
root = b""


def p(name: str | bytes = b"") -> bytes:
    """The path of `name` below the client's directory."""
    return os.path.join(root, os.fsencode(name)) if name else root


def checked(result: int) -> int:
    """Return the result of a C call; raise OSError if it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def digest(data: bytes) -> tuple[int, str]:
    """Length and hash, which stand for many bytes in a comparison."""
    import hashlib

    return len(data), hashlib.blake2b(data, digest_size=16).hexdigest()


def opened(name: str | bytes, flags: int = os.O_RDONLY) -> int:
    """Open for reading, with nothing of the file in the page cache."""
    fd = os.open(p(name), flags)
    forget_pages(fd)
    return fd


def forget_pages(fd: int) -> None:
    """Drop the file's page cache, so that the next read asks the daemon."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def content(name: str | bytes) -> bytes:
    """The whole file, by one open."""
    with open(p(name), "rb") as file:
        return file.read()


Runs = list[tuple[int, int]]


def by_read(name: str, runs: Runs) -> list[tuple[int, str]]:
    """Digests of the runs (offset, size) of a file, by pread(2)."""
    fd = opened(name)
    try:
        return [digest(os.pread(fd, size, offset)) for offset, size in runs]
    finally:
        os.close(fd)


def by_mmap(name: str, runs: Runs) -> list[tuple[int, str]]:
    """The same from a shared mapping of the whole file."""
    fd = opened(name)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapping:
            return [digest(mapping[offset : offset + size]) for offset, size in runs]
    finally:
        os.close(fd)


def by_sendfile(name: str, runs: Runs) -> list[tuple[int, str]]:
    """The same by sendfile(2) into a memory file."""
    fd = opened(name)
    try:
        return [digest(_sent(fd, offset, size)) for offset, size in runs]
    finally:
        os.close(fd)


def _sent(fd: int, offset: int, size: int) -> bytes:
    to = os.memfd_create("sent")
    try:
        done = 0
        while done < size:
            moved = os.sendfile(to, fd, offset + done, size - done)
            if moved == 0:
                break
            done += moved
        return os.pread(to, done, 0)
    finally:
        os.close(to)


def by_splice(name: str, runs: Runs) -> list[tuple[int, str]]:
    """The same by splice(2) through a pipe of the client."""
    fd = opened(name)
    inner, outer = os.pipe()
    try:
        return [digest(_spliced(fd, inner, outer, offset, size)) for offset, size in runs]
    finally:
        for one in (fd, inner, outer):
            os.close(one)


def _spliced(fd: int, inner: int, outer: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    done = 0
    while done < size:
        moved = os.splice(fd, outer, min(size - done, 32768), offset_src=offset + done)
        if moved == 0:
            break
        parts.append(os.read(inner, moved))
        done += moved
    return b"".join(parts)


def by_direct(name: str, runs: Runs) -> list[tuple[int, str] | str]:
    """The same by O_DIRECT into an aligned buffer; the name of the errno if it is refused."""
    fd = opened(name, os.O_RDONLY | os.O_DIRECT)
    try:
        return [_direct(fd, offset, size) for offset, size in runs]
    finally:
        os.close(fd)


def _direct(fd: int, offset: int, size: int) -> tuple[int, str] | str:
    with mmap.mmap(-1, max(size, 1) + _PAGE) as buffer, memoryview(buffer)[:size] as part:
        try:
            return digest(bytes(part[: os.preadv(fd, [part], offset)]))
        except OSError as error:
            return errno.errorcode[error.errno or 0]


# Fields of lstat(2), except the device. A test removes names if its mount has other inode numbers,
# or if its reads change access times.
FIELDS = ["mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", "ino"]
FIELDS += ["atime_ns", "mtime_ns", "ctime_ns"]


def fields_of(status: os.stat_result) -> dict[str, int]:
    """The fields that a mount and its backing tree have in common."""
    return {name: getattr(status, f"st_{name}") for name in FIELDS}


def attributes(name: str | bytes = b"") -> dict[str, int]:
    """The fields of lstat(2)."""
    return fields_of(os.lstat(p(name)))


def tree() -> dict[bytes, dict[str, int]]:
    """The attributes of everything below the root, by path."""
    found = {b"": attributes()}
    for directory, subdirectories, files in os.walk(root):
        for name in subdirectories + files:
            path = os.path.relpath(os.path.join(directory, name), root)
            found[path] = attributes(path)
    return found


class Directory:
    """An open directory, read by getdents64(2) in buffers of a chosen size."""

    def __init__(self, name: str | bytes = b"", buffer: int = 32768) -> None:
        self.fd = os.open(p(name), os.O_RDONLY | os.O_DIRECTORY)
        self._buffer = ctypes.create_string_buffer(buffer)

    def some(self) -> list[tuple[bytes, int, int, int]]:
        """One buffer of entries: name, inode number, type, offset of the next."""
        size = len(self._buffer)
        n = checked(libc.syscall(SYS_GETDENTS64, self.fd, self._buffer, size))
        data, at, found = self._buffer.raw[:n], 0, []
        while at < n:
            ino, offset, length, kind = _DIRENT.unpack_from(data, at)
            name = data[at + _DIRENT.size : at + length].partition(b"\0")[0]
            found.append((name, ino, kind, offset))
            at += length
        return found

    def rest(self) -> list[tuple[bytes, int, int, int]]:
        """The entries from here to the end."""
        found = []
        while entries := self.some():
            found += entries
        return found

    def seek(self, offset: int) -> None:
        """Go to the offset that an entry carried; 0 is rewinddir(3)."""
        os.lseek(self.fd, offset, os.SEEK_SET)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def entries(name: str | bytes = b"") -> list[tuple[bytes, int, int]]:
    """Name, inode number and type of a directory's entries, sorted, without the dot names."""
    directory = Directory(name)
    try:
        found = [entry[:3] for entry in directory.rest()]
    finally:
        directory.close()
    return sorted(entry for entry in found if entry[0] not in (b".", b".."))


def open_without_links(name: str | bytes, flags: int = os.O_RDONLY) -> int:
    """Open by openat2(2) with RESOLVE_NO_SYMLINKS: the client itself follows no link either."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS)
    at = os.open(root, os.O_PATH)
    try:
        path = os.fsencode(name)
        return checked(libc.syscall(SYS_OPENAT2, at, path, how, ctypes.c_size_t(len(how))))
    finally:
        os.close(at)


def xattrs(name: str | bytes) -> dict[str, bytes]:
    """All extended attributes of a file, of a link itself."""
    names = os.listxattr(p(name), follow_symlinks=False)
    return {one: os.getxattr(p(name), one, follow_symlinks=False) for one in sorted(names)}


def getxattr_into(name: str | bytes, attribute: bytes, size: int) -> int:
    """getxattr(2) with a buffer of `size` bytes: the length, or OSError(ERANGE)."""
    buffer = ctypes.create_string_buffer(max(size, 1))
    return checked(libc.getxattr(p(name), attribute, buffer, ctypes.c_size_t(size)))


def birth(name: str | bytes) -> tuple[int, int]:
    """The time of birth by statx(2): seconds and nanoseconds."""
    buffer = ctypes.create_string_buffer(256)
    at_fdcwd, no_follow, btime = -100, 0x100, 0x800
    checked(libc.statx(at_fdcwd, p(name), no_follow, btime, buffer))
    if not struct.unpack_from("=I", buffer)[0] & btime:
        return (0, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return seconds, nanoseconds


def extents(name: str) -> list[tuple[int, int]]:
    """The data segments by SEEK_DATA and SEEK_HOLE: (start, end)."""
    fd, at = os.open(p(name), os.O_RDONLY), 0
    found: list[tuple[int, int]] = []
    try:
        while True:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return found
                raise
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at))
    finally:
        os.close(fd)


def _answer(source: str, names: dict[str, Any]) -> tuple[str, Any]:
    names.update({name: importlib.import_module(name) for name in _LATE_MODULES if name in source})
    try:
        try:
            code = compile(source, "<test>", "eval")
        except SyntaxError:
            exec(compile(source, "<test>", "exec"), names)
            return "value", None
        return "value", eval(code, names)
    except OSError as error:
        return "errno", errno.errorcode.get(error.errno or 0, str(error))
    except Exception:
        import traceback

        return "error", traceback.format_exc()


def main(directory: str, uid: int) -> None:
    """Become the user, then answer until standard input ends."""
    global root
    root = os.fsencode(directory)
    if uid != os.getuid():
        # That user may not be allowed to read the standard library.
        for module in ("hashlib", "traceback", *_LATE_MODULES):
            importlib.import_module(module)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    names = globals()
    for line in sys.stdin:
        sys.stdout.write(repr(_answer(eval(line), names)) + "\n")
        sys.stdout.flush()


# Another name for the sources of the tests.
__all__ = ["stat"]
