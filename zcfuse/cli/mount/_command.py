"""``zcfuse mount``: check, go to the background, serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import click

from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli._parameters import Size
from zcfuse.cli.mount._archives import KEEP, ArchiveOptions
from zcfuse.cli.mount._engine import ENGINES, mounted_by_kernel
from zcfuse.cli.mount._option_text import read_option_texts
from zcfuse.cli.mount._remote import RemoteOptions, hide_secrets
from zcfuse.cli.mount._shown import Wanted, prepare
from zcfuse.cli.mount._starting import Logging, start
from zcfuse.cli.mount._warnings import replace_dead_mount, warn_of_mountpoint
from zcfuse.control import DEFAULT_LOG_LEVEL, LOG_LEVELS
from zcfuse.linux import MountError
from zcfuse.options import (
    COHERENCES,
    DEFAULT_CACHE_TIMEOUT_S,
    NO_TIMEOUT_IF_IMMUTABLE,
    SERVING_PATHS,
    TRANSPORTS,
    MountOptions,
)

_OPTIONS_HELP: Final = (
    "Options as mount(8) writes them, separated by commas: ro, rw, noexec, allow_other, "
    "no_prefault, no_directory_lease, immutable, path=, transport=, cache_timeout=, coherence=, "
    "threads=, lock_budget=, stack_depth=, metrics_listen=, and tree=, layer=, archive=, "
    "archives=, hide=, keep_index=, salvage, unpack_budget=, option=, cache_dir=, cache_size=, "
    "cache_floor=, connections=, engine=, log_file=, log_level= as the options of these names. "
    "A separate option, such as --path, overrides its name in -o. "
    "hot_files=: how many files each thread counts by name, 256 unless given."
)


@click.command()
@click.argument("source", required=False, metavar="SOURCE", shell_complete=_completion.files)
@click.argument(
    "mountpoint", required=False, metavar="MOUNTPOINT", shell_complete=_completion.directories
)
@click.option(
    "--tree",
    "manifest",
    metavar="F",
    shell_complete=_completion.files,
    help="Show the tree that a manifest describes (.toml, .jsonl), instead of SOURCE.",
)
@click.option(
    "--layer",
    "layers",
    metavar="LAYER",
    multiple=True,
    shell_complete=_completion.files,
    help="Show several layers as one, instead of SOURCE; the first is on top. A layer is a"
    " directory, an archive or a manifest. The whiteouts of overlayfs and OCI images hide names"
    " of lower layers.",
)
@click.option(
    "--archive",
    "archives",
    metavar="F",
    multiple=True,
    shell_complete=_completion.files,
    help="Show a tar or zip archive as a directory, instead of SOURCE. Repeat it for several.",
)
@click.option(
    "--archives",
    "archive_directories",
    metavar="DIR",
    multiple=True,
    shell_complete=_completion.directories,
    help="Show each tar or zip archive of DIR as a directory, instead of SOURCE.",
)
@click.option(
    "--keep-index",
    type=click.Choice(list(KEEP)),
    help="Where to keep the index of an archive for the next mount: in"
    " $XDG_CACHE_HOME/zcfuse/archives (or ~/.cache/...), beside it as ARCHIVE.zcidx, or nowhere."
    " [default: cache]",
)
@click.option(
    "--salvage", is_flag=True, help="Show the part of a tar archive before its damage or cut."
)
@click.option(
    "--unpack-budget",
    type=Size(),
    metavar="SIZE",
    help="Memory for the decompressed members of all zip archives together. [default: 1G]",
)
@click.option(
    "--option",
    "driver_options",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the driver of a URL, as fsspec names it. The mount hides the value from"
    " ps(1) once it has read it.",
)
@click.option(
    "--cache-dir",
    metavar="DIR",
    shell_complete=_completion.directories,
    help="Where to keep fetched bytes of a URL. Mounts may share it."
    " [default: $XDG_CACHE_HOME/zcfuse/remote or ~/.cache/...]",
)
@click.option(
    "--cache-size",
    metavar="SIZE",
    help="Limit of that directory, as in 50G, or a share of its disk. [default: 20%]",
)
@click.option(
    "--cache-floor",
    metavar="SIZE",
    help="Space to leave free on that disk, as in 10G, or a share of it. [default: 1%]",
)
@click.option(
    "--connections",
    type=int,
    metavar="N",
    help="Requests to the server of a URL at a time. [default: 16]",
)
@click.option(
    "-o",
    "option_texts",
    metavar="OPT,...",
    multiple=True,
    shell_complete=_completion.mount_options,
    help=_OPTIONS_HELP,
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="Serve the whole mount by the kernel, without a daemon, or by FUSE. auto: the kernel"
    " serves a frozen image if root mounts it and no option needs FUSE. [default: auto]",
)
@click.option("--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option(
    "--path",
    metavar="P",
    shell_complete=_completion.paths,
    help=f"Serving path: {', '.join(SERVING_PATHS)}. [default: auto]",
)
@click.option(
    "--transport",
    metavar="T",
    shell_complete=_completion.transports,
    help=f"How requests reach the daemon: {', '.join(TRANSPORTS)}. [default: auto]",
)
@click.option(
    "--cache-timeout",
    type=float,
    metavar="S",
    help="Seconds for which the kernel may cache names and attributes."
    f" [default: {DEFAULT_CACHE_TIMEOUT_S:g}]",
)
@click.option("--allow-other", is_flag=True, default=None, help="Let other users in.")
@click.option(
    "--rw",
    is_flag=True,
    default=None,
    help="Let clients change SOURCE, a directory. [default: read-only]",
)
@click.option("--threads", type=int, metavar="N", help="Serving threads. [default: chosen]")
@click.option(
    "--lock-budget",
    type=Size(),
    metavar="SIZE",
    help="Memory that buffers, windows and the files of 'zcfuse warm --lock' may lock, as in 64M."
    " [default: up to 64M for buffers and windows, the rest of the limit for files]",
)
@click.option(
    "--no-prefault",
    "prefault",
    flag_value=False,
    type=bool,
    default=None,
    help="Take page faults on use, not in advance.",
)
@click.option(
    "--stack-depth",
    type=int,
    metavar="1|2",
    help="2 also passes through files of an overlayfs. [default: 1]",
)
@click.option(
    "--directory-lease/--no-directory-lease",
    "directory_lease",
    default=None,
    help="Answer for names, attributes and opens without asking Python. [default: on]",
)
@click.option(
    "--coherence",
    type=click.Choice(list(COHERENCES)),
    help="How the kernel learns of changes: it asks again after the cache timeout (ttl), or the"
    " daemon pushes each change (push, as root) and the kernel keeps the rest without a limit."
    " [default: ttl]",
)
@click.option(
    "--immutable",
    is_flag=True,
    default=None,
    help="Promise that SOURCE does not change while it is mounted. After the first look, listing,"
    " open or read, the kernel then answers from its caches.",
)
@click.option(
    "--hide",
    metavar="PATTERN",
    multiple=True,
    help="Do not show what matches, such as .git or '*.tmp'; may be given again. A pattern with a /"
    " is for a path from the root, one with a / at its end for directories.",
)
@click.option(
    "--metrics-listen",
    metavar="[ADDR:]PORT",
    help="Answer a Prometheus scraper on this port of the loopback interface. Port 0 takes any"
    " free port; 'zcfuse status' shows it.",
)
@click.option(
    "--log-file",
    metavar="F",
    shell_complete=_completion.files,
    help="Append the log to this file.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help=f"Log messages of this level and above. [default: {DEFAULT_LOG_LEVEL}]",
)
def mount(
    source: str | None,
    mountpoint: str | None,
    manifest: str | None,
    layers: tuple[str, ...],
    archives: tuple[str, ...],
    archive_directories: tuple[str, ...],
    keep_index: str | None,
    salvage: bool,
    unpack_budget: int | None,
    hide: tuple[str, ...],
    driver_options: tuple[str, ...],
    cache_dir: str | None,
    cache_size: str | None,
    cache_floor: str | None,
    connections: int | None,
    option_texts: tuple[str, ...],
    engine: str | None,
    foreground: bool,
    log_file: str | None,
    log_level: str | None,
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
        said = read_option_texts(option_texts)
        options = _options(said.mount, given)
        wanted = Wanted(
            source=source,
            manifest=manifest or said.tree,
            layers=layers + said.layer,
            archives=archives + said.archive,
            archive_directories=archive_directories + said.archives,
            hide=hide + said.hide,
            archive_options=ArchiveOptions(
                keep_index or said.keep_index,
                salvage or said.salvage,
                said.unpack_budget if unpack_budget is None else unpack_budget,
            ),
            remote_options=RemoteOptions(
                driver_options + said.option,
                cache_dir or said.cache_dir,
                cache_size or said.cache_size,
                cache_floor or said.cache_floor,
                said.connections if connections is None else connections,
            ),
        )
        hide_secrets(wanted.source if wanted.is_remote else None, wanted.remote_options)
        where = mountpoint if wanted.option() is None else mountpoint or source
        if where is not None:
            replace_dead_mount(where)
        shown = prepare(wanted, mountpoint, options)
        warn_of_mountpoint(shown.where, options, wanted.paths())
        logging = Logging(log_file or said.log_file, log_level or said.log_level)
        named = replace(options, source_name=shown.name)
        chosen = engine or said.engine or "auto"
        if mounted_by_kernel(shown, chosen, options, foreground=foreground):
            return 0
        return start(shown, named, logging, foreground=foreground)
    except MountError as error:
        raise CommandError(str(error), usage=error.usage) from error


def _options(said: dict[str, object], given: dict[str, object]) -> MountOptions:
    values = {**said, **{name: value for name, value in given.items() if value is not None}}
    if values.get("immutable") and "cache_timeout" in values:
        raise MountError(f"--immutable with a cache timeout: {NO_TIMEOUT_IF_IMMUTABLE}", usage=True)
    return MountOptions(**values)  # type: ignore[arg-type]
