"""``zcfuse mount``: check, go to the background, serve."""

from __future__ import annotations

from dataclasses import replace

import click

from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli.mount._engine import mounted_by_kernel
from zcfuse.cli.mount._options import (
    merged,
    mount_options,
    read_option_texts,
    told,
    wanted,
    with_options,
)
from zcfuse.cli.mount._remote import hide_secrets
from zcfuse.cli.mount._shown import prepare
from zcfuse.cli.mount._starting import start
from zcfuse.cli.mount._warnings import replace_dead_mount, warn_of_mountpoint
from zcfuse.linux import MountError


@click.command()
@click.argument("source", required=False, metavar="SOURCE", shell_complete=_completion.files)
@click.argument(
    "mountpoint", required=False, metavar="MOUNTPOINT", shell_complete=_completion.directories
)
@with_options
@click.option("--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
def mount(
    source: str | None,
    mountpoint: str | None,
    option_texts: tuple[str, ...],
    foreground: bool,
    **given: object,
) -> int:
    """Show the directory, archive, image or URL SOURCE at the directory MOUNTPOINT.

    SOURCE may also be MODULE:NAME or FILE.py:NAME, a tree that Python describes: a Dir or a Tree of
    that name, or a function that returns one.

    Clients read it; with --rw they also change the files of a directory.

    The command goes to the background and returns once the mount answers. With --tree, --layer,
    --archive or --archives, leave SOURCE out. With --archive or --archives, each archive appears
    as a directory with the archive's name, without its ending.
    """
    try:
        values = merged(read_option_texts(option_texts), given)
        options = mount_options(values)
        named = wanted(source, values)
        hide_secrets(named.urls(), named.remote_options)
        where = mountpoint if named.option() is None else mountpoint or source
        if where is not None:
            replace_dead_mount(where)
        shown = prepare(named, mountpoint, options)
        warn_of_mountpoint(shown.where, options, named.paths())
        chosen = str(values.get("engine", "auto"))
        options = replace(options, source_name=shown.name)
        if mounted_by_kernel(shown, chosen, options, foreground=foreground):
            return 0
        first = named.source if named.option() is None else None
        return start(shown, options, values, first, foreground=foreground)
    except MountError as error:
        raise CommandError(told(error, given), usage=error.usage) from error
