"""Trees that are hard to store, frozen and shown again."""

import hashlib
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.layers.tree_dump import tree_dump
from zcfuse.frozen import FrozenTree, Options, Summary, freeze
from zcfuse.frozen._layout import INCOMPAT_XATTR_PREFIXES, SUPERBLOCK_OFFSET
from zcfuse.tree import Dir, Tree, VirtualTree

Frozen = Callable[..., tuple[str, Summary]]

FEATURES = struct.Struct("<I")
FEATURES_OFFSET = SUPERBLOCK_OFFSET + 80

# Attributes that an image cannot store, or stores as one time.
_NOT_KEPT = ("ino", "blocks", "times")


@pytest.fixture
def frozen(tmp_path: Path) -> Frozen:
    """Freezes a tree: ``frozen(tree, **options)`` returns the image's path and the summary."""
    made = 0

    def write(tree: Tree | Dir, **options: object) -> tuple[str, Summary]:
        nonlocal made
        made += 1
        path = str(tmp_path / f"{made}.zcf")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            shown = VirtualTree(tree) if isinstance(tree, Dir) else tree
            return path, freeze(shown, fd, Options(source="a tree", **options))
        finally:
            os.close(fd)

    return write


def seen(tree: Tree) -> dict[bytes, dict[str, object]]:
    """Everything that a tree shows and an image stores."""
    found = tree_dump(tree, ["missing"])
    for described in found.values():
        if isinstance(described, dict):
            described["mtime"] = described["times"][0]
            for name in _NOT_KEPT:
                described.pop(name)
    return found


def seen_in(image: str) -> dict[bytes, dict[str, object]]:
    """Everything that an image shows."""
    tree = FrozenTree(image)
    try:
        return seen(tree)
    finally:
        tree.close()


def erofs_utils(image: str, program: str, *options: str) -> str:
    """Run a program of erofs-utils on an image, which must find no fault, and return its output.

    Programs older than 1.7 refuse images that define xattr prefixes. They get a copy without that
    flag, and check all the rest: names, inodes, chunks, the sizes of attributes.
    """
    told = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=60)
    version = re.search(r"(\d+)\.(\d+)", told.stdout + told.stderr)
    assert version is not None, told
    if (int(version[1]), int(version[2])) < (1, 7):
        data = bytearray(Path(image).read_bytes())
        (features,) = FEATURES.unpack_from(data, FEATURES_OFFSET)
        FEATURES.pack_into(data, FEATURES_OFFSET, features & ~INCOMPAT_XATTR_PREFIXES)
        image = f"{image} without prefixes"
        Path(image).write_bytes(data)
    found = subprocess.run([program, *options, image], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout


def sha256(path: str) -> str:
    """The digest of a file."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def hard_tree(root: bytes) -> None:
    """Make a directory that is hard to store: names, times, kinds, attributes, sizes."""
    os.makedirs(os.path.join(root, b"d/\xff\xfe not UTF-8/deep"))
    for number, name in enumerate((b"a" * 255, b"!before the dots", b"~", "ü".encode())):
        path = os.path.join(root, name)
        with open(path, "wb") as file:
            file.write(name * number * 50)
        os.utime(path, ns=(0, (-1) ** number * (1_234_567_890_123_456_789 // (number + 1))))
    os.utime(os.path.join(root, b"~"), ns=(0, -(1 << 60) - 1))
    for number in range(3):
        os.link(os.path.join(root, b"~"), os.path.join(root, b"d/link %d" % number))
    with open(os.path.join(root, b"huge"), "wb") as file:
        file.truncate((5 << 30) + 3)
    os.symlink(b"../\xff" * 900, os.path.join(root, b"a long link"))
    os.symlink(b"~", os.path.join(root, b"a link"))
    os.mkfifo(os.path.join(root, b"a FIFO"), 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(root, os.O_PATH)
        server.bind(b"/proc/self/fd/%d/a socket" % here)
        os.close(here)
    _add_attributes(root)


def _add_attributes(root: bytes) -> None:
    path = os.path.join(root, b"d")
    os.setxattr(path, b"user.long", b"v" * 2000)
    os.setxattr(os.path.join(root, b"~"), b"user.\xc3\xbc", b"")
    os.chmod(path, 0o1751)
    if os.geteuid() == 0:
        os.setxattr(path, b"trusted.overlay.opaque", b"y")
        os.chown(os.path.join(root, b"~"), 4_000_000_000, 65_534)
        os.mknod(os.path.join(root, b"a device"), 0o20600, os.makedev(4095, 1_048_575))
