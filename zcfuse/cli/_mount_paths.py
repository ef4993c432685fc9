"""Finds a path in the zcfuse mounts: the mount, the names from its root, and the node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from zcfuse.linux import MountEntry, read_mounts


class MountPath(NamedTuple):
    """A file of a mount, with its path from the mount's root, without a leading slash."""

    mount: MountEntry
    path: bytes


class MountPaths:
    """Finds the mount of a path in the mount table. The constructor reads that table once."""

    def __init__(self, mounts: Sequence[MountEntry] | None = None) -> None:
        known = read_mounts() if mounts is None else mounts
        self._by_device: dict[int, list[MountEntry]] = {}
        for entry in known:
            if entry.is_ours:
                self._by_device.setdefault(os.makedev(*entry.device), []).append(entry)

    def find(self, path: str, device: int) -> MountPath | None:
        """Return the place of a file; None if the file is in no zcfuse mount.

        Parameters:
            path: absolute and without symbolic links.
            device: st_dev of the file.
        """
        entries = [one for one in self._by_device.get(device, ()) if _below(path, one.mountpoint)]
        if not entries:
            return None
        entry = max(entries, key=lambda one: len(one.mountpoint))
        # A bind mount shows a directory of the filesystem as its root.
        names = os.path.join(entry.root, os.path.relpath(path, entry.mountpoint))
        return MountPath(entry, os.fsencode(os.path.normpath(names).strip("/")).removeprefix(b"."))


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
