"""``zcfuse mount``: check, go to the background, serve."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

import click

from zcfuse.cli._errors import CommandError
from zcfuse.control._background import run_in_background
from zcfuse.control._checks import (
    check_apart,
    check_layers,
    check_mountpoint,
    check_options,
    check_source,
)
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
from zcfuse.datapath._mounting import MountError, check_device

if TYPE_CHECKING:
    from zcfuse.tree import Tree

_OPTIONS_HELP: Final = (
    "Options as mount(8) writes them, separated by commas: ro, allow_other, no_prefault, "
    "no_directory_lease, immutable, path=, transport=, cache_timeout=, threads=, lock_budget=, "
    "stack_depth=. An option of its own, such as --path, counts before these."
)

_LONGEST_NAME_BYTES: Final = 2000  # fusermount3 adds options of its own to the page


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
@click.argument("source")
@click.argument("mountpoint", required=False)
@click.option(
    "--layer",
    "layers",
    metavar="DIR",
    multiple=True,
    help="Show several directories as one, instead of SOURCE; the first is on top. What overlayfs"
    " and OCI images write into their layers is understood.",
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
@click.option("--log-file", metavar="F", help="Append the log to this file.")
def mount(
    source: str,
    mountpoint: str | None,
    layers: tuple[str, ...],
    option_texts: tuple[str, ...],
    foreground: bool,
    log_file: str | None,
    **given: object,
) -> int:
    """Show the directory SOURCE, read-only, at the directory MOUNTPOINT.

    With --layer there is no SOURCE: zcfuse mount --layer TOP --layer BOTTOM MOUNTPOINT.
    Goes to the background and returns once the mount answers.
    """
    try:
        options = _options(option_texts, given)
        sources, mountpoint = _shown(source, mountpoint, layers)
        shown, where = _check(sources, mountpoint, options)
        log_path = os.path.abspath(log_file) if log_file else None
        serve = functools.partial(_serve, shown, bool(layers), where, options)
        if foreground:
            return _run_in_foreground(serve, log_path)
        return _run_in_background(serve, where, log_path)
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


def _shown(source: str, mountpoint: str | None, layers: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the directories to show and the mount point; with layers, the first argument is it."""
    if not layers and mountpoint is None:
        raise click.UsageError("Missing argument 'MOUNTPOINT'.")
    if layers and mountpoint is not None:
        raise click.UsageError(f"--layer takes the place of SOURCE: leave out {source!r}.")
    return (list(layers), source) if mountpoint is None else ([source], mountpoint)


def _check(
    sources: list[str], mountpoint: str, options: MountOptions
) -> tuple[tuple[str, ...], str]:
    shown = tuple(check_source(source) for source in sources)
    check_layers(shown)
    where = check_mountpoint(mountpoint)
    for source in shown:
        check_apart(source, where)
    check_options(options)
    check_device()
    return shown, where


def _serve(
    shown: tuple[str, ...],
    merged: bool,
    mountpoint: str,
    options: MountOptions,
    log_to: TextIO | None,
    ready: Callable[[], None],
) -> int:
    # The event loop and pyfuse3: not before the fork, and not for a command that is refused.
    from dataclasses import replace

    from zcfuse.control._daemon import run_daemon

    named = replace(options, source_name=_name_of(shown))
    tree = functools.partial(_tree, shown, merged)
    return run_daemon(tree, mountpoint, named, ready=ready, log_to=log_to)


def _name_of(shown: tuple[str, ...]) -> str:
    """Return what the mount is listed as; mount(2) takes a page at most."""
    name = ":".join(shown)
    if len(os.fsencode(name)) <= _LONGEST_NAME_BYTES or len(shown) == 1:
        return name
    return f"{shown[0]}:({len(shown) - 1} more layers)"


def _tree(shown: tuple[str, ...], merged: bool) -> Tree:
    from zcfuse.tree import Mirror, Union

    return Union(shown) if merged else Mirror(shown[0])


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
