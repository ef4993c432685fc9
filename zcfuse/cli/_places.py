"""Where a path is: in which zcfuse mount, by which names from its root, by which node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from zcfuse.linux import MountEntry, read_mounts


class Place(NamedTuple):
    """A file of a mount: its path from the mount's root, without a slash at the start."""

    mount: MountEntry
    path: bytes


class Places:
    """Finds the mount of a path, by the mount table as it was when this was made."""

    def __init__(self, mounts: Sequence[MountEntry] | None = None) -> None:
        known = read_mounts() if mounts is None else mounts
        self._by_device: dict[int, list[MountEntry]] = {}
        for entry in known:
            if entry.is_ours:
                self._by_device.setdefault(os.makedev(*entry.device), []).append(entry)

    def find(self, path: str, device: int) -> Place | None:
        """Return where a file is, None if it is in no zcfuse mount.

        Parameters:
            path: absolute and without symbolic links.
            device: its st_dev.
        """
        entries = [one for one in self._by_device.get(device, ()) if _below(path, one.mountpoint)]
        if not entries:
            return None
        entry = max(entries, key=lambda one: len(one.mountpoint))
        # A bind mount shows a directory of the filesystem as its root.
        names = os.path.join(entry.root, os.path.relpath(path, entry.mountpoint))
        return Place(entry, os.fsencode(os.path.normpath(names).strip("/")).removeprefix(b"."))


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
