"""``zcfuse upgrade``: has the installed version of zcfuse take a surviving mount over."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from typing import Final

import click

from zcfuse.admin.status import (
    RenewReply,
    Request,
    StatusDocument,
    StatusError,
    ask,
    find_mount,
    list_mounts,
    read_status_of,
)
from zcfuse.cli import _completion
from zcfuse.cli._errors import EXIT_FAILED, CommandError, warn
from zcfuse.linux import MountEntry
from zcfuse.text import escaped

# The new version loads, and indexes an archive again if it must.
_RENEW_S: Final = 130.0
_TAKEOVER_S: Final = 60.0
_ALIVE_S: Final = 1.0
_POLL_S: Final = 0.02


@click.command()
@click.argument("mountpoint", required=False, shell_complete=_completion.mountpoints)
@click.option("--all", "every", is_flag=True, help="Upgrade all mounts of this user; root: all.")
def upgrade(mountpoint: str | None, every: bool) -> int:
    """Have the installed version of zcfuse take over the mount at MOUNTPOINT.

    Clients wait for some milliseconds and get no error. The mount needs --survive. If the
    installed version cannot take the mount over, the running daemon goes on.
    """
    if every == (mountpoint is not None):
        raise click.UsageError("name one MOUNTPOINT, or give --all")
    try:
        entries = _surviving() if mountpoint is None else [find_mount(mountpoint)]
        generations = [_renew(entry) for entry in entries]
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    return _hand_over_all(entries, generations)


def _surviving() -> list[MountEntry]:
    """Return the mounts that this user may ask, and that survive."""
    found = []
    for entry in list_mounts():
        if os.geteuid() not in (0, entry.owner[0]):
            continue
        survival = read_status_of(entry).survival
        if survival is None:
            warn(f"zcfuse: {entry.mountpoint}: mounted without --survive: mount it again instead")
        elif survival.program:
            warn(f"zcfuse: {entry.mountpoint}: a program serves it: start that program again")
        else:
            found.append(entry)
    return found


def _renew(entry: MountEntry) -> int:
    """Have a standby of the installed version wait; return the generation that serves."""
    reply = ask(entry, Request("renew"), timeout=_RENEW_S)
    if not isinstance(reply, RenewReply):
        raise StatusError(f"{entry.mountpoint}: unexpected answer {reply!r}")
    return reply.generation


def _hand_over_all(entries: Sequence[MountEntry], generations: Sequence[int]) -> int:
    status = 0
    for entry, generation in zip(entries, generations, strict=True):
        with contextlib.suppress(StatusError):  # the daemon ends instead of an answer
            ask(entry, Request("hand_over"), timeout=_TAKEOVER_S)
        document = _successor(entry, generation)
        if document is None or document.survival is None:
            warn(
                f"zcfuse: {entry.mountpoint}: no successor within {_TAKEOVER_S:g} s:"
                f" see 'zcfuse status {entry.mountpoint}'",
                level=logging.ERROR,
            )
            status = EXIT_FAILED
            continue
        pause = document.survival.last[-1].pause_s * 1000 if document.survival.last else 0
        click.echo(
            f"{escaped(document.mountpoint)}: version {document.version}, generation"
            f" {document.survival.generation}, clients waited {pause:.0f} ms"
        )
    return status


def _successor(entry: MountEntry, generation: int) -> StatusDocument | None:
    """Return the status of a daemon after a generation; None at the end of the time."""
    deadline = time.monotonic() + _TAKEOVER_S
    while time.monotonic() < deadline:
        with contextlib.suppress(StatusError):
            document = read_status_of(entry, timeout=_ALIVE_S)
            if document.survival is not None and document.survival.generation > generation:
                return document
        time.sleep(_POLL_S)
    return None
