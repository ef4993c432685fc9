"""``zcfuse freeze``: writes a tree into an image that the kernel can serve by itself."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from typing import TYPE_CHECKING, Final

import click

from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli._output import print_pairs, size
from zcfuse.cli._parameters import Size
from zcfuse.cli.frozen._freezable import freezable
from zcfuse.cli.mount import KEEP, ArchiveOptions, ChosenSources, Progress
from zcfuse.linux import MountError

if TYPE_CHECKING:
    from zcfuse.frozen import Options, Reason, Summary
    from zcfuse.tree import Tree

_MODE: Final = 0o644
_MODE_WITH_COPIES: Final = 0o600
"""Of an image with the bytes of files, which others may perhaps not read."""

_NAMED_AT_MOST: Final = 8


@click.command()
@click.argument("source", required=False, metavar="SOURCE", shell_complete=_completion.files)
@click.argument("image", required=False, metavar="IMAGE", shell_complete=_completion.files)
@click.option("--tree", "manifest", metavar="F", help="Freeze the tree of a manifest.")
@click.option(
    "--layer",
    "layers",
    metavar="LAYER",
    multiple=True,
    help="Freeze a union, top first, of directories, archives, manifests and images.",
)
@click.option("--archive", "archives", metavar="F", multiple=True, help="Freeze archives.")
@click.option(
    "--archives",
    "archive_directories",
    metavar="DIR",
    multiple=True,
    help="Freeze each archive of a directory.",
)
@click.option("--keep-index", type=click.Choice(list(KEEP)), help="As for 'zcfuse mount'.")
@click.option("--salvage", is_flag=True, help="As for 'zcfuse mount'.")
@click.option(
    "--leave-out",
    is_flag=True,
    help="Write the image without the entries that cannot be frozen, and list them.",
)
@click.option(
    "--copy-up-to",
    type=Size(),
    metavar="SIZE",
    default=0,
    help="Copy whole files of up to SIZE, such as 64K, into the image. They need no backing"
    " file, and their first open is faster. Only the owner may read such an image.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Record size and time of modification of each backing file for 'zcfuse check'.",
)
@click.option(
    "--digest",
    is_flag=True,
    help="Record the SHA-256 of each backing file as well, and its fs-verity digest if it has one.",
)
def freeze(
    source: str | None,
    image: str | None,
    manifest: str | None,
    layers: tuple[str, ...],
    archives: tuple[str, ...],
    archive_directories: tuple[str, ...],
    keep_index: str | None,
    salvage: bool,
    leave_out: bool,
    copy_up_to: int,
    verify: bool,
    digest: bool,
) -> int:
    """Write the tree of SOURCE into IMAGE, for 'zcfuse mount IMAGE MOUNTPOINT'.

    SOURCE is a directory, an archive, or MODULE:NAME or FILE.py:NAME for a tree that Python
    describes. With --tree, --layer, --archive or --archives, leave SOURCE out. The image holds
    names and attributes, and says where the bytes of each file are. Those files must not change.
    """
    wanted = ChosenSources(
        source=source,
        manifest=manifest,
        layers=layers,
        archives=archives,
        archive_directories=archive_directories,
        archive_options=ArchiveOptions(keep_index, salvage, None),
    )
    target = _target(wanted.option(), source, image)
    try:
        found = freezable(wanted)
    except MountError as error:
        raise CommandError(str(error), usage=error.usage) from error
    from zcfuse.frozen import Options

    options = Options(
        source=found.name,
        roots=found.roots,
        leave_out=leave_out,
        copy_up_to=copy_up_to,
        verify=verify or digest,
        digest=digest,
    )
    summary = _write(found.tree, target, options)
    _print(target, summary)
    return 0


def _target(option: str | None, first: str | None, second: str | None) -> str:
    if option is None:
        if second is None:
            raise click.MissingParameter(param_hint="'IMAGE'", param_type="argument")
        return second
    if second is not None:
        raise click.UsageError(f"{option} takes the place of SOURCE: leave {first!r} out")
    if first is None:
        raise click.MissingParameter(param_hint="'IMAGE'", param_type="argument")
    return first


def _write(tree: Tree, target: str, options: Options) -> Summary:
    """Write the image under a temporary name, and rename it when it is complete."""
    from zcfuse.frozen import FreezeError
    from zcfuse.frozen import freeze as write

    directory = os.path.dirname(os.path.abspath(target))
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise CommandError(f"{target}: not a regular file: name a file for the image", usage=True)
    fd, unfinished = tempfile.mkstemp(prefix=".zcfuse-", dir=directory)
    progress = Progress(f"freezing {options.source}")
    try:
        try:
            summary = write(tree, fd, options, progress.count)
            mode = _MODE_WITH_COPIES if options.copy_up_to else _MODE
            os.fchmod(fd, mode & ~_umask())
        finally:
            progress.end()
            os.close(fd)
        os.rename(unfinished, target)
    except BaseException as error:
        os.unlink(unfinished)
        if isinstance(error, FreezeError):
            remedy = "use --leave-out to freeze the tree without them"
            raise CommandError(f"{options.source}: {error}: {remedy}") from error
        raise
    return summary


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _print(target: str, summary: Summary) -> None:
    about = summary.about
    for left in summary.left_out:
        warn(f"zcfuse: left out: {_line(left)}")
    for reason in about.fuse_only[:_NAMED_AT_MOST]:
        warn(f"zcfuse: only FUSE can serve the image: {reason}")
    print_pairs(
        os.path.abspath(target),
        {
            "files": about.files,
            "directories": about.directories,
            "other entries": about.other,
            "left out": sum(left.count for left in summary.left_out),
            "bytes of files": size(about.data_bytes),
            "copied into the image": size(about.copied_bytes),
            "size of the image": size(summary.image_bytes),
            "files that hold blocks": len(about.devices),
            **({"files with fs-verity": about.verity} if about.digests else {}),
            "engines": "FUSE" if about.fuse_only else "kernel, FUSE",
            "time": f"{summary.seconds:.1f} s",
        },
    )
    sys.stdout.flush()


def _line(left: Reason) -> str:
    return f"{left.count} such as {os.fsdecode(left.example)!r}: {left.reason}"
