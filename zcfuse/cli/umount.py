"""``zcfuse umount``: asks the daemon to end, or removes a mount that has no daemon."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

from zcfuse.admin import unmount_within
from zcfuse.admin.status import (
    StatusError,
    end_holder,
    find_mount,
    list_mounts,
    read_status,
    request_unmount,
)
from zcfuse.cli import _completion
from zcfuse.cli._errors import EXIT_FAILED, CommandError, warn
from zcfuse.cli._kernel_mounts import kernel_mounts, leave_kernel, unmounted_from_kernel
from zcfuse.linux import (
    KernelMount,
    MountEntry,
    MountError,
    User,
    read_mounts,
    unmount,
    users_of,
)
from zcfuse.options import DEFAULT_UNMOUNT_WAIT_S

if TYPE_CHECKING:
    from zcfuse.engine import KernelServed

_MOST_NAMED: Final = 4
_REMEDY: Final = "end them, give them time by --wait SECONDS, or detach it by --force or --lazy"


@click.command()
@click.argument("mountpoint", required=False, shell_complete=_completion.mountpoints)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=3600),
    default=DEFAULT_UNMOUNT_WAIT_S,
    show_default=True,
    metavar="S",
    help="Seconds to wait while the mount is busy.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Detach a mount that is still busy after the wait: programs that use it get ENOTCONN.",
)
@click.option(
    "--lazy",
    is_flag=True,
    help="Detach at once: programs that use it go on, and the daemon ends after the last of them.",
)
@click.option("--all", "every", is_flag=True, help="Unmount all mounts of this user; root: all.")
@click.option(
    "--if-dead", is_flag=True, help="Act only if the daemon is gone; otherwise do nothing."
)
def umount(
    mountpoint: str | None, wait: float, force: bool, lazy: bool, every: bool, if_dead: bool
) -> int:
    """Unmount the zcfuse mount at MOUNTPOINT and end its daemon.

    The command also cleans up a mount whose daemon was killed. A mount that is still busy after
    the wait stays, and one line names the programs that use it.
    """
    if every == (mountpoint is not None):
        raise click.UsageError("name one MOUNTPOINT, or give --all")
    if lazy and force:
        raise click.UsageError("--lazy and --force exclude each other: give one of them")
    leave = functools.partial(_leave, wait=wait, force=force, lazy=lazy)
    if mountpoint is None:
        return _leave_all(leave, functools.partial(leave_kernel, wait=wait, force=force, lazy=lazy))
    if if_dead and not _is_dead(mountpoint):
        return 0
    if unmounted_from_kernel(mountpoint, wait, force=force, lazy=lazy):
        return 0
    try:
        entry = find_mount(mountpoint)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    owner, _ = entry.owner
    if os.geteuid() not in (0, owner):
        raise CommandError(
            f"{entry.mountpoint}: belongs to user {owner}: only that user and root may unmount it;"
            " use sudo"
        )
    leave(entry)
    return 0


def _leave_all(
    leave: Callable[[MountEntry], None], leave_kernel: Callable[[KernelServed], None]
) -> int:
    """Unmount all mounts that this user may unmount, last first; return the exit status."""
    status = 0
    by_kernel = {served.entry.mount_id: served for served in kernel_mounts()}
    for entry in reversed(read_mounts()):
        served = by_kernel.get(entry.mount_id)
        try:
            if served is not None and os.geteuid() == 0:
                leave_kernel(served)
            elif entry.is_ours and os.geteuid() in (0, entry.owner[0]):
                leave(entry)
        except CommandError as error:
            warn(f"zcfuse: {error}", level=logging.ERROR)
            status = EXIT_FAILED
    return status


def _leave(entry: MountEntry, *, wait: float, force: bool, lazy: bool) -> None:
    if lazy:
        try:
            unmount(entry.mountpoint, lazy=True)
        except (OSError, MountError) as error:
            raise CommandError(f"{entry.mountpoint}: not detached: {error}") from error
        return
    message = _unmount(entry, wait, force=force)
    if message:
        warn(f"zcfuse: {message}")


def _is_dead(mountpoint: str) -> bool:
    try:
        read_status(mountpoint)
    except StatusError as error:
        return error.dead
    return False


def _unmount(entry: MountEntry, wait: float, *, force: bool) -> str:
    try:
        reply = request_unmount(entry, wait, force=force)
    except StatusError as error:
        # The daemon is gone or does not answer, so take the mount away without it.
        if error.waits:
            end_holder(entry)
        message = _clean_up(entry, wait)
        return message if error.dead or error.waits or message else f"{error}: unmounted without it"
    if reply.busy:
        raise CommandError(f"{reply.message}{_named(users_of(entry))}: {_REMEDY}")
    if reply.failed:
        raise CommandError(reply.message)
    if _is_there(entry):
        # Do not trust the daemon's own answer: another user may run it.
        return _clean_up(entry, wait)
    return reply.message


def _named(users: Sequence[User]) -> str:
    """Return the programs that use a mount, with the names of the first few."""
    if not users:
        return ""
    named = [f"{user.command} ({user.pid}, {user.use})" for user in users[:_MOST_NAMED]]
    more = len(users) - len(named)
    return f"; used by {', '.join(named)}" + (f" and {more} more" if more else "")


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
