"""``mount.fuse.zcfuse``: the program that mount(8) runs for the filesystem type fuse.zcfuse.

mount(8) runs it for a line of fstab and for ``mount -t fuse.zcfuse SOURCE MOUNTPOINT -o ...``. This
module handles the options that every filesystem has. It handles the others as ``zcfuse mount -o``
does. Its exit statuses are those of mount(8).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NoReturn

import click

from zcfuse.cli._errors import CommandError, Program, run, warn
from zcfuse.cli.mount._engine import mounted_by_kernel
from zcfuse.cli.mount._options import mount_options, read_option_texts, told, wanted
from zcfuse.cli.mount._remote import hide_secrets, shown_remote
from zcfuse.cli.mount._shown import NO_SOURCE, Prepared, prepare
from zcfuse.cli.mount._starting import start
from zcfuse.cli.mount._warnings import replace_dead_mount
from zcfuse.linux import FSTYPE, MountError, enter_mount_namespace
from zcfuse.options import MountOptions, split_options
from zcfuse.remote import is_url
from zcfuse.text import escaped

# From mount(8), EXIT STATUS.
HELPER: Final = Program(f"mount.{FSTYPE}", failed=32, usage=1, interrupted=8)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the helper and end the process."""
    sys.exit(run(mount_helper, arguments, HELPER))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="SOURCE")
@click.argument("mountpoint", metavar="MOUNTPOINT")
@click.option(
    "-o", "option_texts", metavar="OPT,...", multiple=True, help="Options, separated by commas."
)
@click.option("-t", "kind", metavar="TYPE", default=FSTYPE, help=f"The type: {FSTYPE}.")
@click.option("-s", "sloppy", is_flag=True, help="Ignore unknown options.")
@click.option("-f", "fake", is_flag=True, help="Check everything without mounting.")
@click.option("-v", "verbose", is_flag=True, help="Report the mount.")
@click.option("-n", "no_mtab", is_flag=True, help="Accepted without effect, as there is no mtab.")
@click.option("-N", "namespace", metavar="NS", help="Mount in this mount namespace.")
def mount_helper(
    source: str,
    mountpoint: str,
    option_texts: tuple[str, ...],
    kind: str,
    sloppy: bool,
    fake: bool,
    verbose: bool,
    no_mtab: bool,
    namespace: str | None,
) -> int:
    """Mount SOURCE at MOUNTPOINT for mount(8).

    If an option (tree, layer, archive, archives) replaces SOURCE, SOURCE is only a name.
    """
    if kind not in (FSTYPE, FSTYPE.removeprefix("fuse.")):
        raise CommandError(f"-t {kind}: the type is {FSTYPE}", usage=True)
    values, options, writable = _read(option_texts, sloppy=sloppy)
    if namespace is not None and options.survive:
        raise CommandError("-N with survive: the holder starts Python there: leave out either")
    if namespace is not None:
        # A relative path would have another meaning there.
        mountpoint = os.path.abspath(mountpoint)
        is_path = wanted(None, values).option() is None and not is_url(source)
        source = os.path.abspath(source) if is_path else source
        _enter(namespace)
    try:
        if not fake:
            replace_dead_mount(mountpoint)
        shown = _prepare(source, mountpoint, values, options)
        if writable and not options.rw and "upper" not in values:
            warn(
                f"{HELPER.name}: {mountpoint}: mounted read-only: write 'ro' in its options,"
                " or 'writable' to change the tree"
            )
        if not fake:
            engine = str(values.get("engine", "auto"))
            if not mounted_by_kernel(shown, engine, options, foreground=False):
                name = shown_remote(source) if is_url(source) else source
                named = replace(options, source_name=name)
                first = None if wanted(None, values).option() else source
                start(shown, named, values, first, foreground=False)
    except MountError as error:
        # mount(8) expects the status of a failed mount even for a missing directory.
        raise CommandError(told(error, {})) from error
    if verbose:
        name = shown_remote(source) if is_url(source) else source
        click.echo(escaped(f"{HELPER.name}: {name} {'can be ' * fake}mounted on {shown.where}"))
    return 0


def _read(texts: Sequence[str], *, sloppy: bool) -> tuple[dict[str, object], MountOptions, bool]:
    """Return the values of all options, those of the mount, and whether mount(8) wants ``rw``.

    mount(8) writes ``rw`` unless the user wrote ``ro``, so a user who wants to write says
    ``writable``.
    """
    ours = []
    writable = True
    for option in (option for text in texts for option in split_options(text)):
        if option in ("ro", "rw"):
            writable = option == "rw"
        elif option == "remount":
            raise CommandError("-o remount: not possible: unmount, then mount again")
        else:
            ours.append(f'"{option}"')
    try:
        values = read_option_texts(ours, sloppy=sloppy)
        return values, mount_options(values), writable
    except MountError as error:
        raise CommandError(told(error, {}), usage=True) from error


def _prepare(
    source: str, mountpoint: str, values: Mapping[str, object], options: MountOptions
) -> Prepared:
    replacing = wanted(None, values)
    hide_secrets(replacing.urls(), replacing.remote_options)
    if replacing.option() is None:
        shown = wanted(source, values)
        hide_secrets(shown.urls(), shown.remote_options)
        return prepare(shown, mountpoint, options)
    if os.path.isabs(source) and source not in replacing.paths():
        raise CommandError(
            f"{source}: an option replaces SOURCE: write {NO_SOURCE} in its place",
            usage=True,
        )
    return prepare(wanted(mountpoint, values), None, options)


def _enter(namespace: str) -> None:
    """Enter a mount namespace, named as in mount(8) by a process id or a file."""
    # The other namespace may have no Python, so load everything that the daemon needs now.
    import zcfuse.tree.archive
    import zcfuse.tree.manifest  # noqa: F401
    from zcfuse.control import run_daemon  # noqa: F401

    path = f"/proc/{namespace}/ns/mnt" if namespace.isdecimal() else namespace
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"-N {namespace}: {error.strerror}: name a process") from error
    try:
        enter_mount_namespace(descriptor)
    except OSError as error:
        raise CommandError(f"-N {namespace}: {error.strerror}: only root may enter it") from error
    finally:
        os.close(descriptor)
