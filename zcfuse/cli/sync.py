"""``zcfuse sync``: waits until a mount with pushed changes shows them all."""

from __future__ import annotations

import click

from zcfuse.admin.status import Request, StatusError, SyncReply, ask, find_mount
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError

# The daemon may need this much more than the wait, since its answer goes over a socket.
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
    """Wait until the mount at MOUNTPOINT shows every earlier change of its backing tree.

    A client that looks after this command returns sees each change that returned before the
    command began. The mount needs --coherence push.
    """
    try:
        entry = find_mount(mountpoint)
        reply = ask(entry, Request("sync", wait), timeout=wait + _ANSWER_S)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    if not isinstance(reply, SyncReply) or not reply.done:
        raise CommandError(
            f"{entry.mountpoint}: did not wait for changes: see 'coherence' in"
            f" 'zcfuse status {entry.mountpoint}'"
        )
