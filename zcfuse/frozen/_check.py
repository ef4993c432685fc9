"""Comparing the files that an image names with what they were when the tree was frozen."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

import msgspec

from zcfuse.frozen._about import RECORD
from zcfuse.frozen._image import FrozenImage
from zcfuse.frozen._records import sha256_of
from zcfuse.tree import Attributes, Backing

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_DIGEST: Final = bytes(32)


class Changed(msgspec.Struct, frozen=True):
    """A file that is not what it was: its path, and how that shows."""

    path: bytes
    reason: str


class CheckSummary(msgspec.Struct):
    """How many files were compared, and by what: "size", "mtime" and "digest"."""

    compared: int = 0
    by: str = "size"


def check(image: FrozenImage, summary: CheckSummary) -> Iterator[Changed]:
    """Yield the backing files that have changed since the tree was frozen.

    Sizes are always compared, times of modification and digests where the image has them.
    `summary` counts the files.

    Raises:
        DamagedImageError: the image contradicts itself.
    """
    recorded = {nid: rest for nid, *rest in RECORD.iter_unpack(image.records())}
    if recorded:
        summary.by = "digest" if image.about.digests else "mtime"
    for device in image.about.devices:
        summary.compared += 1
        reason = _difference(_opened(device.path), device.size, device.mtime_ns, _NO_DIGEST)
        if reason:
            yield Changed(device.path, reason)
    roots = [Backing(root) for root in image.about.roots]
    for attributes, redirect in _redirected(image):
        summary.compared += 1
        size, mtime_ns, digest = recorded.get(attributes.ino, (attributes.size, None, _NO_DIGEST))
        root, fd = _found(roots, redirect)
        reason = _difference(fd, size, mtime_ns, digest)
        if reason:
            yield Changed(image.about.roots[root].rstrip(b"/") + redirect, reason)


def _redirected(image: FrozenImage) -> Iterator[tuple[Attributes, bytes]]:
    """Yield the files that are whole backing files, each once."""
    pending, seen = [image.root], {image.root}
    while pending:
        for _, name, nid in image.entries(pending.pop()):
            if name in (b".", b".."):
                continue
            attributes = image.attributes(nid)
            linked = stat.S_ISDIR(attributes.mode) or attributes.nlink > 1
            if linked and nid in seen:
                continue
            if linked:
                seen.add(nid)
            if stat.S_ISDIR(attributes.mode):
                pending.append(nid)
            place = image.place(nid) if stat.S_ISREG(attributes.mode) else None
            if isinstance(place, bytes):
                yield attributes, place


def _found(roots: list[Backing], redirect: bytes) -> tuple[int, int | OSError]:
    """Return the number of the root that has a file, and the file's descriptor or an error."""
    missing: OSError = FileNotFoundError(2, os.strerror(2))
    for number, root in enumerate(roots):
        try:
            return number, root.open([name for name in redirect.split(b"/") if name])
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return number, error
    return 0, missing


def _opened(path: bytes) -> int | OSError:
    try:
        return os.open(path, _READ)
    except OSError as error:
        return error


def _difference(fd: int | OSError, size: int, mtime_ns: int | None, digest: bytes) -> str:
    """Close `fd` and say what is different about its file; nothing where it is the same."""
    if isinstance(fd, OSError):
        return fd.strerror or str(fd)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return "no regular file any more"
        if status.st_size != size:
            return f"{status.st_size} bytes, and {size} when it was frozen"
        if mtime_ns is not None and status.st_mtime_ns != mtime_ns:
            return "modified since it was frozen"
        if digest != _NO_DIGEST and sha256_of(fd) != digest:
            return "other bytes than when it was frozen (SHA-256)"
        return ""
    finally:
        os.close(fd)
