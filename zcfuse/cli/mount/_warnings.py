"""Warns about a mount point, one line each, and replaces a dead mount there."""

from __future__ import annotations

import os
from collections.abc import Sequence

from zcfuse.admin import unmount_within
from zcfuse.cli._errors import warn
from zcfuse.control import AUTOFS
from zcfuse.linux import Answer, KernelMount, MountEntry, mount_at, probe, resolve_mountpoint
from zcfuse.options import MountOptions


def replace_dead_mount(mountpoint: str) -> None:
    """Remove a zcfuse mount whose daemon is gone, and say so in one line.

    A mount that answers, hangs or belongs to another user stays; the checks refuse it later.
    """
    entry = mount_at(resolve_mountpoint(mountpoint))
    if entry is None or not entry.is_ours or os.geteuid() not in (0, entry.owner[0]):
        return
    if probe(entry.mountpoint, owner=entry.owner) is Answer.DEAD and _taken_away(entry):
        warn(f"zcfuse: {entry.mountpoint}: the daemon of the mount there is gone: replaced")


def _taken_away(entry: MountEntry) -> bool:
    left = KernelMount(-1, entry)
    try:
        return not unmount_within(left, 0).failed
    finally:
        left.close()


def warn_of_mountpoint(where: str, options: MountOptions, sources: Sequence[str]) -> None:
    """Warn, each in one line, if the mount shuts other users out or hides files.

    Parameters:
        where: the mount point, as the checks return it.
        options: of the mount.
        sources: the paths that the mount shows; it may cover them without a warning.
    """
    entry = mount_at(where)
    is_automount = entry is not None and entry.fstype == AUTOFS
    # A look at an automount would ask for this mount.
    for_others = os.environ.get("SUDO_UID", "0") != "0" or (
        not is_automount and _is_of_another_user(where)
    )
    if os.geteuid() == 0 and for_others and not options.allow_other:
        warn(f"zcfuse: {where}: only root will see the files: add --allow-other for other users")
    if is_automount:
        return
    meant = {os.path.realpath(path) for path in sources}
    meant |= {os.path.dirname(path) for path in meant}
    if where not in meant and _has_entries(where):
        warn(f"zcfuse: {where}: not empty: the mount hides the files of this directory")


def _is_of_another_user(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid != os.geteuid()
    except OSError:
        return False


def _has_entries(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
