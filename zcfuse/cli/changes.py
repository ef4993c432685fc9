"""``zcfuse diff``, ``commit`` and ``reset``: the upper layer of a union that clients changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import click

from zcfuse.admin.status import StatusError, read_status
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError

_LETTERS = {"added": "A", "changed": "C", "removed": "D", "renamed": "R"}


class _Union(NamedTuple):
    """The directories of a mounted union; a layer that is no directory is None."""

    upper: str
    layers: list[str | None]

    def directories(self) -> list[str] | None:
        """Return the layers, or None if one is no directory."""
        found = [layer for layer in self.layers if layer is not None]
        return found if len(found) == len(self.layers) else None


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
def diff(mountpoint: str) -> None:
    """List what clients changed of the union at MOUNTPOINT.

    Each line has a letter and a name: A for added, C for changed, D for removed. C for a directory
    means that its own mode, owner or extended attributes changed. R is for a directory that was
    renamed: R OLD -> NEW.
    """
    from zcfuse.tree import Union, union_changes

    union = _union_at(mountpoint)
    layers = union.directories()
    if layers is None:
        raise CommandError(f"{mountpoint}: a layer is no directory: nothing to compare with")
    with _told(mountpoint), closing(Union(layers)) as lower:
        for change in union_changes(union.upper, lower):
            before = change.before + b" -> " if change.before else b""
            click.echo(os.fsencode(f"{_LETTERS[change.kind]} ") + before + change.path)


@click.command()
@click.argument("mountpoint", shell_complete=_completion.mountpoints)
@click.argument("destination", shell_complete=_completion.files)
def commit(mountpoint: str, destination: str) -> None:
    """Write what clients changed of the union at MOUNTPOINT as a layer.

    DESTINATION is a new or empty directory, or a file whose name ends in .tar. Removed names become
    .wh. names, as in OCI images. A renamed directory is written whole. Let no client change the
    union meanwhile.
    """
    from zcfuse.tree import Union, write_layer_directory, write_layer_tar

    union = _union_at(mountpoint)
    layers = union.directories()
    with _told(destination), ExitStack() as opened:
        shown = None if layers is None else Union([union.upper, *layers])
        if shown is not None:
            opened.enter_context(closing(shown))
        if destination.endswith(".tar"):
            with open(destination, "xb") as file:
                write_layer_tar(union.upper, file, shown)
            return
        os.makedirs(destination, exist_ok=True)
        if os.listdir(destination):
            raise CommandError(f"{destination}: not empty: name a new directory", usage=True)
        write_layer_directory(union.upper, destination, shown)


@click.command()
@click.argument("upper", shell_complete=_completion.directories)
@click.option("--work", metavar="DIR", help="Its work directory.  [default: UPPER.work]")
def reset(upper: str, work: str | None) -> None:
    """Empty the upper layer UPPER of a union, so that its layers show as they are.

    Unmount the union first.
    """
    from zcfuse.tree import Upper

    with _told(upper), closing(Upper(upper, work)), os.scandir(upper) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn an error of the filesystem into the command's."""
    try:
        yield
    except OSError as error:
        where = error.filename if error.filename is not None else what
        raise CommandError(f"{os.fsdecode(where)}: {error.strerror}") from error


def _union_at(mountpoint: str) -> _Union:
    try:
        document = read_status(mountpoint)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error
    for upper, told in document.tree.get("unions", {}).items():
        assert isinstance(told, list)
        return _Union(upper, told)
    raise CommandError(f"{mountpoint}: no union with an upper layer: mount it with --upper")
