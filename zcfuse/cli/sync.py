"""``zcfuse sync``: the fence of a mount whose changes are pushed."""

from __future__ import annotations

import click

from zcfuse.admin.status import Request, StatusError, SyncReply, ask, find_mount
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError

# The daemon may need this much beyond the wait: its answer goes over a socket.
_ANSWER_S = 5.0


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, max=3600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait.",
)
def sync(mountpoint: str, wait: float) -> None:
    """Wait until the mount at MOUNTPOINT shows every change of its backing tree made so far.

    A look that begins after this returns sees each change that returned before it. The mount must
    have been made with --coherence push.
    """
    try:
        entry = find_mount(mountpoint)
        reply = ask(entry, Request("sync", wait), timeout=wait + _ANSWER_S)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    if not isinstance(reply, SyncReply) or not reply.done:
        raise CommandError(
            f"{entry.mountpoint}: no change was waited for: see 'coherence' in"
            f" 'zcfuse status {entry.mountpoint}'"
        )
