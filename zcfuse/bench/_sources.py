"""The files and trees to measure on: temporary ones, or those that a user names.

This module only reads the user's trees, and removes its temporary ones at the end of the block.
"""

import contextlib
import os
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

DEFAULT_SIZE: Final = 1 << 30
SMALL_FILE_BYTES: Final = 16 << 10
_LEAST_SIZE: Final = 16 << 20  # a smaller file measures the open
_FREE_SHARE: Final = 2  # use at most this fraction (1/N) of the free space
_MEMORY_SHARE: Final = 4  # the same of memory: two caches, and room for other work
_BLOCK: Final = 1 << 20
_LARGE_FILE_BYTES: Final = 256 << 20
_LARGE_ENOUGH: Final = 4 << 20
_SMALL_RANGE: Final = range(1, 4 * SMALL_FILE_BYTES + 1)
_FILES_PER_DIRECTORY: Final = 100
_MAX_ENTRIES_LOOKED_AT: Final = 200_000


class SourceError(Exception):
    """Nothing to measure on; the message says what to do."""


class SourceFile(msgspec.Struct, frozen=True):
    """One file below a directory to mount, and a mountpoint outside it.

    `note` says how it differs from the request, such as a smaller size.
    """

    root: str
    name: str
    size: int
    mountpoint: str
    note: str = ""

    @property
    def path(self) -> str:
        """The backing file's path."""
        return os.path.join(self.root, self.name)


class SourceTree(msgspec.Struct, frozen=True):
    """A tree with a large file and many small ones, by names relative to `root`."""

    root: str
    large: str
    large_size: int
    small: tuple[str, ...]
    entries: int


def _available_memory() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def fitting_size(wanted: int, free: int, memory: int) -> int:
    """Return the largest size up to `wanted` bytes that disk and memory can spare."""
    return min(wanted, free // _FREE_SHARE, memory // _MEMORY_SHARE) // _BLOCK * _BLOCK


def write_file(path: str, size: int) -> None:
    """Write `size` bytes of different blocks and wait until they are stored.

    Otherwise write-back would run during the measurement.
    """
    pattern = bytearray(random.Random(size).randbytes(_BLOCK))
    with open(path, "wb", buffering=0) as file:
        for index in range(0, size, _BLOCK):
            pattern[:8] = index.to_bytes(8, "little")
            pattern[_BLOCK // 2 : _BLOCK // 2 + 8] = (~index & (1 << 64) - 1).to_bytes(8, "little")
            file.write(memoryview(pattern)[: size - index])
        os.fsync(file.fileno())


@contextlib.contextmanager
def temporary_file(size: int | None) -> Iterator[SourceFile]:
    """Create a file of `size` bytes, or of up to 1 GiB as disk and memory allow.

    Raises `SourceError` if not even a few MiB fit.
    """
    with tempfile.TemporaryDirectory(prefix="zcfuse-") as base:
        space = os.statvfs(base)
        free = space.f_bavail * space.f_frsize
        chosen = size or fitting_size(DEFAULT_SIZE, free, _available_memory())
        if chosen > free or chosen < (1 if size else _LEAST_SIZE):
            raise SourceError(
                f"{base} has {free >> 20} MiB free: give a smaller --size, "
                "or set TMPDIR to a directory with more space"
            )
        short = not size and chosen < DEFAULT_SIZE
        note = f"{chosen >> 20} MiB, as disk and memory allow" if short else ""
        source = os.path.join(base, "source")
        mountpoint = os.path.join(base, "mnt")
        os.mkdir(source)
        os.mkdir(mountpoint)
        write_file(os.path.join(source, "data"), chosen)
        yield SourceFile(source, "data", chosen, mountpoint, note)


@contextlib.contextmanager
def existing_file(path: str, size: int | None) -> Iterator[SourceFile]:
    """Use the first `size` bytes of the file at `path` (None: all); only reads it."""
    path = os.path.realpath(path)
    try:
        length = os.stat(path).st_size
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    if not os.path.isfile(path) or length == 0:
        raise SourceError(f"{path}: not a regular file with anything in it")
    chosen = min(size or length, length)
    note = f"{chosen} bytes: all that the file has" if size and size > length else ""
    root, name = os.path.split(path)
    with mountpoint_outside(root) as mountpoint:
        yield SourceFile(root, name, chosen, mountpoint, note)


def mountpoint_outside(root: str) -> contextlib.AbstractContextManager[str]:
    """A temporary directory that neither contains `root` nor lies inside it."""
    candidates = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/run", "/dev/shm"]
    return _temporary_outside(root, [*candidates, "/var/tmp"])


def directory_outside(root: str) -> contextlib.AbstractContextManager[str]:
    """The same for much data: prefers a disk to memory."""
    return _temporary_outside(root, [tempfile.gettempdir(), "/var/tmp", "/dev/shm"])


@contextlib.contextmanager
def _temporary_outside(root: str, candidates: Sequence[str | None]) -> Iterator[str]:
    root = os.path.realpath(root)
    for candidate in filter(None, candidates):
        base = os.path.realpath(candidate)
        if os.path.commonpath([base, root]) == root or not os.access(base, os.W_OK):
            continue
        with tempfile.TemporaryDirectory(prefix="zcfuse-mnt-", dir=base) as directory:
            yield directory
        return
    raise SourceError(f"{root}: no place for a mountpoint outside of it; choose a directory below")


@contextlib.contextmanager
def temporary_tree(files: int) -> Iterator[SourceTree]:
    """Create a large file of 256 MiB (less if space is short) and `files` small ones of 16 KiB."""
    with tempfile.TemporaryDirectory(prefix="zcfuse-") as base:
        space = os.statvfs(base)
        size = fitting_size(_LARGE_FILE_BYTES, space.f_bavail * space.f_frsize, _available_memory())
        if size < _LARGE_ENOUGH:
            raise SourceError(f"{base}: no space; set TMPDIR to a directory with more of it")
        write_file(os.path.join(base, "large"), size)
        names = []
        content = random.Random(files).randbytes(SMALL_FILE_BYTES)
        for index in range(files):
            directory = f"small/{index // _FILES_PER_DIRECTORY:04}"
            if index % _FILES_PER_DIRECTORY == 0:
                os.makedirs(os.path.join(base, directory))
            names.append(f"{directory}/{index:06}")
            with open(os.path.join(base, names[-1]), "wb") as file:
                file.write(content)
        os.sync()
        directories = -(-files // _FILES_PER_DIRECTORY)
        yield SourceTree(base, "large", size, tuple(names), files + directories + 2)


@contextlib.contextmanager
def tar_of(tree: SourceTree) -> Iterator[str]:
    """Create a tar archive of the measured files of `tree`, outside the tree.

    A compressed copy, with ".gz" after its name, lies beside it if gzip(1) is installed.

    Raises `SourceError` without enough space.
    """
    names = [*([tree.large] if tree.large else []), *tree.small]
    paths = [os.path.join(tree.root, name) for name in names]
    with directory_outside(tree.root) as directory:
        space = os.statvfs(directory)
        needed = sum(os.stat(path).st_size for path in paths) * _FREE_SHARE
        if needed > space.f_bavail * space.f_frsize:
            raise SourceError(
                f"{directory}: no space for an archive of the measured files:"
                f" it takes {needed >> 20} MiB free; set TMPDIR, or leave out --tar"
            )
        archive = os.path.join(directory, "measured.tar")
        with tarfile.open(archive, "w") as file:
            for name, path in zip(names, paths, strict=True):
                file.add(path, name, recursive=False)
        if shutil.which("gzip"):
            subprocess.run(["gzip", "--fast", "--keep", archive], check=True)
        os.sync()
        yield archive


def survey(root: str, files: int) -> SourceTree:
    """Choose from a user's tree: its largest file, and up to `files` small ones nearest to 16 KiB.

    `large` is empty if no file has 4 MiB. Raises `SourceError` if `root` is not a directory.
    """
    root = os.path.realpath(root)
    if not os.path.isdir(root):
        raise SourceError(f"{root}: not a directory")
    found = _regular_files(root)
    largest = max(found, default=(0, ""))
    small = sorted(
        (abs(size - SMALL_FILE_BYTES), name) for size, name in found if size in _SMALL_RANGE
    )
    large_name = largest[1] if largest[0] >= _LARGE_ENOUGH else ""
    return SourceTree(
        root=root,
        large=large_name,
        large_size=min(largest[0], _LARGE_FILE_BYTES) if large_name else 0,
        small=tuple(name for _, name in small[:files]),
        entries=len(found),
    )


def _regular_files(root: str) -> Sequence[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    looked_at = 0
    for directory, directories, names in os.walk(root):
        directories[:] = [name for name in directories if _is_plain(directory, name)]
        for name in names:
            looked_at += 1
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError, UnicodeError):
                path.encode()  # JSON cannot carry a name that is not UTF-8
                if os.path.isfile(path) and not os.path.islink(path) and os.access(path, os.R_OK):
                    found.append((os.stat(path).st_size, os.path.relpath(path, root)))
        if looked_at > _MAX_ENTRIES_LOOKED_AT:
            break
    return found


def _is_plain(directory: str, name: str) -> bool:
    return not os.path.ismount(os.path.join(directory, name))
