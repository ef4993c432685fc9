"""``zcfuse check``: list the files of an image that have changed since they were frozen."""

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
    """List the files that IMAGE names and that are no longer what they were.

    Sizes are always compared. Times of modification are where the image was made with --verify, and
    the bytes where it was made with --digest. Exit status 1 if a file has changed.
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
