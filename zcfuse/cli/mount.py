"""``zcfuse mount``: check, go to the background, serve."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TextIO

import click

from zcfuse.cli._errors import CommandError
from zcfuse.cli._manifest import load
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
    from zcfuse.tree import Dir, Tree

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
    source: str | None,
    mountpoint: str | None,
    manifest: str | None,
    layers: tuple[str, ...],
    option_texts: tuple[str, ...],
    foreground: bool,
    log_file: str | None,
    **given: object,
) -> int:
    """Show the directory SOURCE, read-only, at the directory MOUNTPOINT.

    Goes to the background and returns once the mount answers. With --tree or --layer there is no
    SOURCE: they say what to show.
    """
    try:
        options = _options(option_texts, given)
        name, where, make_tree = _chosen(source, mountpoint, manifest, layers, options)
        log_path = os.path.abspath(log_file) if log_file else None
        serve = functools.partial(_serve, make_tree, where, replace(options, source_name=name))
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


def _chosen(
    source: str | None,
    mountpoint: str | None,
    manifest: str | None,
    layers: tuple[str, ...],
    options: MountOptions,
) -> tuple[str, str, Callable[[], Tree]]:
    """Return the name of what to show, where, and what makes the tree; all of it checked."""
    if manifest is not None and layers:
        raise click.UsageError("--tree and --layer exclude each other")
    if manifest is not None:
        where = _check_mountpoint(_only(source, mountpoint, "--tree"), options)
        return os.path.abspath(manifest), where, functools.partial(_put_together, load(manifest))
    if layers:
        shown, where = _check(layers, _only(source, mountpoint, "--layer"), options)
        return _name_of(shown), where, functools.partial(_merged, shown)
    (name,), where = _check((_given(source, "SOURCE"),), _given(mountpoint, "MOUNTPOINT"), options)
    return name, where, functools.partial(_mirrored, name)


def _given(argument: str | None, name: str) -> str:
    if argument is None:
        raise click.MissingParameter(param_hint=f"'{name}'", param_type="argument")
    return argument


def _only(first: str | None, second: str | None, option: str) -> str:
    """Return the mount point where it is the only argument, which click takes for SOURCE."""
    if second is not None:
        raise click.UsageError(f"{option} takes the place of SOURCE: leave {first!r} out")
    return _given(first, "MOUNTPOINT")


def _check(
    sources: tuple[str, ...], mountpoint: str, options: MountOptions
) -> tuple[tuple[str, ...], str]:
    shown = tuple(check_source(source) for source in sources)
    check_layers(shown)
    where = check_mountpoint(mountpoint)
    for source in shown:
        check_apart(source, where)
    check_options(options)
    check_device()
    return shown, where


def _check_mountpoint(mountpoint: str, options: MountOptions) -> str:
    where = check_mountpoint(mountpoint)
    check_options(options)
    check_device()
    return where


def _serve(
    make_tree: Callable[[], Tree],
    mountpoint: str,
    options: MountOptions,
    log_to: TextIO | None,
    ready: Callable[[], None],
) -> int:
    # The event loop and pyfuse3: not before the fork, and not for a command that is refused.
    from zcfuse.control._daemon import run_daemon

    return run_daemon(make_tree, mountpoint, options, ready=ready, log_to=log_to)


def _name_of(layers: tuple[str, ...]) -> str:
    """Return what the mount is listed as; mount(2) takes a page at most."""
    name = ":".join(layers)
    if len(os.fsencode(name)) <= _LONGEST_NAME_BYTES or len(layers) == 1:
        return name
    return f"{layers[0]}:({len(layers) - 1} more layers)"


# Each loads the trees when it is called, after the fork and not for a command that is refused.
def _mirrored(source: str) -> Tree:
    from zcfuse.tree import Mirror

    return Mirror(source)


def _merged(layers: tuple[str, ...]) -> Tree:
    from zcfuse.tree import Union

    return Union(layers)


def _put_together(root: Dir) -> Tree:
    from zcfuse.tree import VirtualTree

    return VirtualTree(root)


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
