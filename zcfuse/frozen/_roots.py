"""The directories that redirects begin at: data-only layers of overlayfs.

A layer shows one mount, without what is mounted below. So each mount that files lie on needs a
layer. Overlayfs searches the layers in order, and a path must therefore exist in none before its
own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

MOST_ROOTS: Final = 64


class Roots:
    """Finds the root of a path. `preferred` are absolute paths of directories, without symlinks."""

    def __init__(self, preferred: Sequence[bytes]) -> None:
        self._preferred = frozenset(preferred)
        self._by_directory: dict[bytes, bytes] = {}
        self._mounts: dict[bytes, int] = {}
        self._roots: list[bytes] = []

    @property
    def all(self) -> Sequence[bytes]:
        """The roots, in the order of the layers."""
        return self._roots

    def redirect(self, path: bytes) -> bytes | None:
        """Return the path from its root on, None where overlayfs could find another file there."""
        root = self._root_of(os.path.dirname(path))
        if root not in self._roots:
            if len(self._roots) == MOST_ROOTS:
                return None
            self._roots.append(root)
        redirect = path[len(root) :] if root != b"/" else path
        earlier = self._roots[: self._roots.index(root)]
        if any(os.path.lexists(one.rstrip(b"/") + redirect) for one in earlier):
            return None
        return redirect

    def _root_of(self, directory: bytes) -> bytes:
        climbed: list[bytes] = []
        at = directory
        while at not in self._by_directory:
            climbed.append(at)
            above = os.path.dirname(at)
            if at in self._preferred or at == b"/" or self._mount(at) != self._mount(above):
                self._by_directory[at] = at
                break
            at = above
        root = self._by_directory[at]
        self._by_directory.update(dict.fromkeys(climbed, root))
        return root

    def _mount(self, directory: bytes) -> int:
        known = self._mounts.get(directory)
        if known is None:
            known = self._mounts[directory] = _mount_id(directory)
        return known


def _mount_id(directory: bytes) -> int:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    finally:
        os.close(fd)
    return int(lines["mnt_id"])
