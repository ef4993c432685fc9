"""``zcfuse check``: lists the files that changed after the freezing of an image."""

from __future__ import annotations

import os

import click

from zcfuse.admin.status import printable
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli._output import json_option, print_json
from zcfuse.cli.frozen._images import open_image


@click.command()
@click.argument("image", metavar="IMAGE", shell_complete=_completion.files)
@json_option
def check(image: str, as_json: bool) -> int:
    """List the files of IMAGE that have changed since the freezing.

    The command always compares sizes. For an image made with --verify it also compares times of
    modification, and with --digest the bytes. The exit status is 1 if a file has changed.
    """
    from zcfuse.frozen import CheckSummary, ImageError
    from zcfuse.frozen import check as compare

    opened = open_image(image)
    summary = CheckSummary()
    try:
        changed = [(os.fsdecode(one.path), one.reason) for one in compare(opened, summary)]
    except ImageError as error:
        raise CommandError(str(error)) from error
    finally:
        opened.close()
    if as_json:
        print_json({"compared": summary.compared, "by": summary.by, "changed": changed})
    else:
        for path, reason in changed:
            click.echo(f"{printable(path)}: {reason}")
        compared = f"{summary.compared} files compared by {summary.by}"
        click.echo(f"{compared}: {len(changed) or 'none'} changed")
    return 1 if changed else 0
