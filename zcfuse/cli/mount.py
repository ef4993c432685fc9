"""``zcfuse mount``: check, go to the background, serve."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TextIO

import click

from zcfuse.cli._archives import KEEP, ArchiveOptions, log_archives
from zcfuse.cli._errors import CommandError
from zcfuse.cli._shown import Prepared, Wanted, prepare
from zcfuse.control._background import run_in_background
from zcfuse.control._options import (
    DEFAULT_CACHE_TIMEOUT_S,
    NO_TIMEOUT_IF_IMMUTABLE,
    SERVING_PATHS,
    TRANSPORTS,
    MountOptions,
    parse_mount_options,
    parse_size,
)
from zcfuse.datapath._mount_probe import Answer, probe
from zcfuse.datapath._mounting import MountError

_OPTIONS_HELP: Final = (
    "Options as mount(8) writes them, separated by commas: ro, allow_other, no_prefault, "
    "no_directory_lease, immutable, path=, transport=, cache_timeout=, threads=, lock_budget=, "
    "stack_depth=, metrics_listen=. An option of its own, such as --path, counts before these."
)


class Size(click.ParamType[int]):
    """A number of bytes, such as 64M."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes; a wrong text is a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("source", required=False, metavar="SOURCE")
@click.argument("mountpoint", required=False, metavar="MOUNTPOINT")
@click.option(
    "--tree",
    "manifest",
    metavar="F",
    help="Show the tree that a manifest describes (.toml, .jsonl), in the place of SOURCE.",
)
@click.option(
    "--layer",
    "layers",
    metavar="DIR",
    multiple=True,
    help="Show several directories as one, in the place of SOURCE; the first is on top. What"
    " overlayfs and OCI images write into their layers is understood.",
)
@click.option(
    "--archive",
    "archives",
    metavar="F",
    multiple=True,
    help="Show a tar or zip archive as a directory, in the place of SOURCE; may be given again.",
)
@click.option(
    "--archives",
    "archive_directories",
    metavar="DIR",
    multiple=True,
    help="Show each tar or zip archive of DIR as a directory, in the place of SOURCE.",
)
@click.option(
    "--keep-index",
    type=click.Choice(list(KEEP)),
    help="Where the index of an archive is kept for the next mount: in"
    " $XDG_CACHE_HOME/zcfuse/archives (or ~/.cache/...), beside it as ARCHIVE.zcidx, or not at all."
    " [default: cache]",
)
@click.option(
    "--salvage", is_flag=True, help="Show what is before the first damaged header of a tar archive."
)
@click.option(
    "--unpack-budget",
    type=Size(),
    metavar="SIZE",
    help="Memory for the decompressed members of zip archives, of all together. [default: 1G]",
)
@click.option("-o", "option_texts", metavar="OPT,...", multiple=True, help=_OPTIONS_HELP)
@click.option("--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option(
    "--path", metavar="P", help=f"Serving path: {', '.join(SERVING_PATHS)}. [default: auto]"
)
@click.option(
    "--transport",
    metavar="T",
    help=f"How requests reach the daemon: {', '.join(TRANSPORTS)}. [default: auto]",
)
@click.option(
    "--cache-timeout",
    type=float,
    metavar="S",
    help="Seconds for which names and attributes may be cached."
    f" [default: {DEFAULT_CACHE_TIMEOUT_S:g}]",
)
@click.option("--allow-other", is_flag=True, default=None, help="Let other users in.")
@click.option("--threads", type=int, metavar="N", help="Serving threads. [default: chosen]")
@click.option(
    "--lock-budget",
    type=Size(),
    metavar="SIZE",
    help="Memory that buffers and windows may lock, as in 64M."
    " [default: 64M, or what the limit leaves]",
)
@click.option(
    "--no-prefault",
    "prefault",
    flag_value=False,
    type=bool,
    default=None,
    help="Take page faults when they come.",
)
@click.option(
    "--stack-depth",
    type=int,
    metavar="1|2",
    help="2: pass through files of an overlayfs, too. [default: 1]",
)
@click.option(
    "--directory-lease/--no-directory-lease",
    "directory_lease",
    default=None,
    help="Answer for names, attributes and opens without asking Python. [default: on]",
)
@click.option(
    "--immutable",
    is_flag=True,
    default=None,
    help="Promise that SOURCE does not change while it is mounted: whatever was looked at, listed,"
    " opened or read once is answered by the kernel from then on.",
)
@click.option(
    "--metrics-listen",
    metavar="[ADDR:]PORT",
    help="Answer a Prometheus scraper on this port of the loopback interface. Port 0: one that is"
    " free, which 'zcfuse status' tells.",
)
@click.option("--log-file", metavar="F", help="Append the log to this file.")
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
    option_texts: tuple[str, ...],
    foreground: bool,
    log_file: str | None,
    **given: object,
) -> int:
    """Show the directory or the archive SOURCE, read-only, at the directory MOUNTPOINT.

    Goes to the background and returns once the mount answers. With --tree, --layer, --archive or
    --archives there is no SOURCE. With --archive or --archives each archive is a directory, called
    as the archive without its ending.
    """
    try:
        options = _options(option_texts, given)
        wanted = Wanted(
            source=source,
            manifest=manifest,
            layers=layers,
            archives=archives,
            archive_directories=archive_directories,
            archive_options=ArchiveOptions(keep_index, salvage, unpack_budget),
        )
        shown = prepare(wanted, mountpoint, options)
        log_path = os.path.abspath(log_file) if log_file else None
        serve = functools.partial(_serve, shown, replace(options, source_name=shown.name))
        if foreground:
            return _run_in_foreground(serve, log_path)
        return _run_in_background(serve, shown.where, log_path)
    except MountError as error:
        raise CommandError(str(error), usage=error.usage) from error


def _options(texts: tuple[str, ...], given: dict[str, object]) -> MountOptions:
    values: dict[str, object] = {}
    for text in texts:
        values.update(parse_mount_options(text))
    values.update({name: value for name, value in given.items() if value is not None})
    if values.get("immutable") and "cache_timeout" in values:
        raise MountError(f"--immutable with a cache timeout: {NO_TIMEOUT_IF_IMMUTABLE}", usage=True)
    return MountOptions(**values)  # type: ignore[arg-type]


def _serve(
    shown: Prepared,
    options: MountOptions,
    log_to: TextIO | None,
    ready: Callable[[], None],
) -> int:
    # The event loop and pyfuse3: not before the fork, and not for a command that is refused.
    from zcfuse.control._daemon import run_daemon

    def ready_and_logged() -> None:
        log_archives(shown.archives)  # not before the daemon has its log
        ready()

    return run_daemon(shown.make_tree, shown.where, options, ready=ready_and_logged, log_to=log_to)


def _run_in_foreground(
    serve: Callable[[TextIO | None, Callable[[], None]], int], log_path: str | None
) -> int:
    from zcfuse.control._log import foreground_log

    return serve(foreground_log(log_path), lambda: None)


def _run_in_background(
    serve: Callable[[TextIO | None, Callable[[], None]], int], mountpoint: str, log_path: str | None
) -> int:
    from zcfuse.control._log import open_log

    log_to = open_log(log_path) if log_path else None
    run_in_background(
        functools.partial(serve, log_to),
        functools.partial(_require_answer, mountpoint),
        error_output=log_to,
    )
    return 0


def _require_answer(mountpoint: str) -> None:
    answer = probe(mountpoint)
    if answer is not Answer.ALIVE:
        raise MountError(
            f"{mountpoint}: mounted, but the mount is {answer.value}: try --foreground to see why"
        )
