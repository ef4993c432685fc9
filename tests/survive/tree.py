"""The backing tree of the load, and what its files hold."""

import os
import zlib

DIRECTORIES = 8
FILES = 12
LONG_NAMES = 1500
_BLOCK = 4096


def size_of(directory: int, file: int) -> int:
    """Return a size from a byte to 200 KiB; no two files of a directory are alike."""
    return 1 + (directory * 7919 + file * 16411) % 200_000


def content_of(directory: int, file: int) -> bytes:
    """Return the bytes of a file; each block names its place."""
    size = size_of(directory, file)
    blocks = range(size // _BLOCK + 1)
    made = (b"%08x" % zlib.crc32(b"%d/%d/%d" % (directory, file, block)) for block in blocks)
    return b"".join(block * (_BLOCK // 8) for block in made)[:size]


def path_of(directory: int, file: int) -> str:
    """Return the path of a file below the root."""
    return f"d{directory}/f{file}"


def long_name(number: int) -> str:
    """Return a name of the large directory, whose listing takes several requests."""
    return f"{number:05d}-{'x' * 60}"


def make(root: str) -> None:
    """Make the tree in an empty directory."""
    for directory in range(DIRECTORIES):
        os.mkdir(os.path.join(root, f"d{directory}"))
        for file in range(FILES):
            with open(os.path.join(root, path_of(directory, file)), "wb") as target:
                target.write(content_of(directory, file))
    os.mkdir(os.path.join(root, "large"))
    for number in range(LONG_NAMES):
        with open(os.path.join(root, "large", long_name(number)), "wb"):
            pass
