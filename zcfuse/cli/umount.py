"""``zcfuse umount``: ask the daemon to end; where there is none, take the mount away."""

from __future__ import annotations

import os

import click

from zcfuse.admin._unmounting import unmount_within
from zcfuse.admin.status._client import StatusError, find_mount, read_status, request_unmount
from zcfuse.admin.status._registry import list_mounts
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError, warn
from zcfuse.linux._mount_table import MountEntry
from zcfuse.linux._mounting import KernelMount
from zcfuse.options._mount import DEFAULT_UNMOUNT_WAIT_S


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=3600),
    default=DEFAULT_UNMOUNT_WAIT_S,
    show_default=True,
    metavar="S",
    help="Seconds to wait for a busy mount before it is detached lazily.",
)
@click.option(
    "--if-dead", is_flag=True, help="Only if its daemon is gone; else do nothing, silently."
)
def umount(mountpoint: str, wait: float, if_dead: bool) -> int:
    """Unmount the zcfuse mount at MOUNTPOINT and end its daemon.

    A mount whose daemon was killed is cleaned up. A busy one is detached lazily after the wait,
    with a line that says so.
    """
    if if_dead and not _is_dead(mountpoint):
        return 0
    try:
        entry = find_mount(mountpoint)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    owner, _ = entry.owner
    if os.geteuid() not in (0, owner):
        raise CommandError(
            f"{entry.mountpoint}: belongs to user {owner}: only that user and root may unmount it"
        )
    message = _unmount(entry, wait)
    if message:
        warn(f"zcfuse: {message}")
    return 0


def _is_dead(mountpoint: str) -> bool:
    try:
        read_status(mountpoint)
    except StatusError as error:
        return error.dead
    return False


def _unmount(entry: MountEntry, wait: float) -> str:
    try:
        reply = request_unmount(entry, wait)
    except StatusError as error:
        # No daemon, or one that does not answer: the mount goes without it.
        message = _clean_up(entry, wait)
        return message if error.dead or message else f"{error}: unmounted without it"
    if reply.failed:
        raise CommandError(reply.message)
    if _is_there(entry):
        # The word of a daemon is not enough: another user may have written it.
        return _clean_up(entry, wait)
    return reply.message


def _is_there(entry: MountEntry) -> bool:
    own = entry.mount_id, entry.device
    return own in [(one.mount_id, one.device) for one in list_mounts()]


def _clean_up(entry: MountEntry, wait: float) -> str:
    left = KernelMount(-1, entry)
    try:
        outcome = unmount_within(left, wait)
    finally:
        left.close()
    if outcome.failed:
        raise CommandError(outcome.message)
    return outcome.message
