"""``zcfuse warm``: reads files ahead into the page cache, or keeps them in memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import click
import msgspec

from zcfuse.admin.status import StatusError, list_mounts, read_status_of
from zcfuse.cli import _completion
from zcfuse.cli._errors import EXIT_FAILED, EXIT_INTERRUPTED, CommandError, warn
from zcfuse.cli._mount_paths import MountPath, MountPaths
from zcfuse.cli._output import json_option, print_json, size
from zcfuse.cli._parameters import Size
from zcfuse.cli.warm._files import Failure, FoundFile, find_files, jobs_of
from zcfuse.cli.warm._locking import Locker, LockTally, unlock
from zcfuse.cli.warm._reading import Tally, Warmer
from zcfuse.linux import MountEntry, resolve_mountpoint
from zcfuse.text import escaped

# Printed paths for each reason; --json has them all.
_MOST_FAILURES: Final = 5


class Summary(msgspec.Struct):
    """The document of ``--json``. Sizes are in bytes."""

    files: int
    bytes: int
    seconds: float
    interrupted: bool
    warmed: Tally | None
    locked: LockTally | None
    failures: list[Failure]


@click.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@click.option(
    "--lock",
    "limit",
    type=Size(),
    metavar="SIZE",
    help="Have the daemon of the mount keep the files in memory until the mount ends, up to SIZE,"
    " as in 10G.",
)
@click.option("--unlock", "is_unlock", is_flag=True, help="Stop keeping the files in memory.")
@click.option(
    "--unlock-all",
    is_flag=True,
    help="Stop keeping any files in memory: in the mounts that hold a PATH, or in all your mounts.",
)
@click.option(
    "--from",
    "list_file",
    metavar="FILE",
    shell_complete=_completion.files,
    help="Warm the paths that a file lists, one on each line, besides PATH, in this order;"
    " 'zcfuse trace --format files' writes such a file.",
)
@json_option
def warm(
    paths: tuple[str, ...],
    list_file: str | None,
    limit: int | None,
    is_unlock: bool,
    unlock_all: bool,
    as_json: bool,
) -> int:
    """Read files, and all files below directories, ahead into the page cache.

    The command fills the cache that serves readers of a PATH: under passthrough that of the
    backing file, otherwise the mount's own. It also warms a PATH outside of all zcfuse mounts. It
    leaves out holes. The exit status is 1 if a part of a file could not be warmed.
    """
    if sum((limit is not None, is_unlock, unlock_all)) > 1:
        raise click.UsageError("--lock, --unlock and --unlock-all exclude each other: give one")
    if list_file is not None:
        paths = (*paths, *_listed(list_file))
    if not paths and not unlock_all:
        raise click.MissingParameter(param_hint="'PATH...'", param_type="argument")
    try:
        if is_unlock or unlock_all:
            return _unlock(_everything(paths) if unlock_all else _named(paths), as_json)
        return _warm(paths, limit, as_json)
    except StatusError as error:
        raise CommandError(str(error), usage=error.usage) from error


def _listed(list_file: str) -> list[str]:
    try:
        with open(list_file, "rb") as file:
            return [os.fsdecode(line) for line in file.read().split(b"\n") if line]
    except OSError as error:
        raise CommandError(f"--from {list_file}: {error.strerror}", usage=True) from error


def _warm(paths: Sequence[str], limit: int | None, as_json: bool) -> int:
    failures: list[Failure] = []
    files = find_files(paths, failures)
    began = time.monotonic()
    interrupted = False
    with _progress(sum(file.size for file in files)) as advance:
        worker = Warmer(advance) if limit is None else Locker(limit, advance)
        try:
            worker.run(jobs_of(files))
        except KeyboardInterrupt:
            interrupted = True
    summary = Summary(
        files=len(files),
        bytes=sum(file.size for file in files),
        seconds=round(time.monotonic() - began, 3),
        interrupted=interrupted,
        warmed=worker.tally if isinstance(worker, Warmer) else None,
        locked=worker.tally if isinstance(worker, Locker) else None,
        failures=[*failures, *worker.failures],
    )
    _print(summary, as_json)
    if interrupted and limit is not None:
        _tell_locked(files)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if summary.failures else 0


def _print(summary: Summary, as_json: bool) -> None:
    if as_json:
        print_json(summary)
    else:
        _print_failures(summary.failures)
    click.echo(f"zcfuse warm: {_line(summary)}", err=True)


def _print_failures(failures: Sequence[Failure]) -> None:
    """For each reason, print a line for each of the first files, then the number of the others."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in failures:
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        for path in paths[:_MOST_FAILURES]:
            click.echo(f"{escaped(path)}: {escaped(reason)}")
        more = len(paths) - _MOST_FAILURES
        if more > 0:
            click.echo(f"and {_files(more)} more ({escaped(reason)}): --json has them all")


def _line(summary: Summary) -> str:
    told = [f"{_files(summary.files)}, {size(summary.bytes)}"]
    if summary.warmed is not None:
        told += _warmed(summary.warmed, summary.seconds)
    if summary.locked is not None:
        told += _locked(summary.locked)
    if summary.failures:
        told.append(f"{len({path for path, _ in summary.failures}):,} could not be fully warmed")
    if summary.interrupted:
        told.append("interrupted")
    return "; ".join(told)


def _warmed(done: Tally, seconds: float) -> list[str]:
    read = done.read + done.unknown
    rate = f" ({size(int(read / max(seconds, 0.001)))}/s)" if read else ""
    told = [f"{size(done.resident)} in memory before"]
    told.append(f"{size(read)} read in {seconds:.1f} s{rate}")
    if done.unknown:
        told.append(f"{size(done.unknown)} of another user's files, perhaps in memory before")
    if done.holes:
        told.append(f"{size(done.holes)} of holes left out")
    return told


def _locked(done: LockTally) -> list[str]:
    told = [f"{size(done.locked)} locked"]
    if done.held:
        told.append(f"{size(done.held)} locked before")
    if done.left_out:
        told.append(f"{size(done.left_out)} not locked")
    return told


def _tell_locked(files: Sequence[FoundFile]) -> None:
    """Say, after an interrupt, what the daemons have locked by now."""
    for mount in {file.place.mount for file in files if file.place is not None}:
        try:
            locks = read_status_of(mount).locks
        except StatusError as error:  # the locked pages went away with their daemon
            warn(str(error))
            continue
        held = 0 if locks is None else locks.bytes
        click.echo(
            f"zcfuse warm: {mount.mountpoint}: {size(held)} stay locked until the unmount:"
            " see 'zcfuse status', or 'zcfuse warm --unlock-all'",
            err=True,
        )


def _named(paths: Sequence[str]) -> dict[MountEntry, list[bytes]]:
    """Return the files to unlock, by mount. Find a file that is gone by its name."""
    places = MountPaths()
    named: dict[MountEntry, list[bytes]] = {}
    for given in paths:
        place = _place(given, places)
        if place is None:
            raise CommandError(f"{given}: in no zcfuse mount: nothing of it is locked")
        named.setdefault(place.mount, []).append(place.path)
    # No paths stand for everything in the mount.
    return {mount: [] if b"" in below else below for mount, below in named.items()}


def _place(given: str, places: MountPaths) -> MountPath | None:
    path = os.path.realpath(given)
    above = path
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    return places.find(path, os.stat(above).st_dev)


def _everything(paths: Sequence[str]) -> dict[MountEntry, list[bytes]]:
    if not paths:
        return {mount: [] for mount in list_mounts() if mount.owner[0] == os.geteuid()}
    whole = {resolve_mountpoint(path) for path in paths}
    mounts = [mount for mount in list_mounts() if mount.mountpoint in whole]
    return {mount: [] for mount in mounts} or {mount: [] for mount in _named(paths)}


def _unlock(named: dict[MountEntry, list[bytes]], as_json: bool) -> int:
    files = freed = 0
    status = 0
    for mount, paths in named.items():
        try:
            reply = unlock(mount, paths)
        except StatusError as error:
            warn(f"zcfuse: {error}")
            status = EXIT_FAILED
            continue
        files, freed = files + reply.files, freed + reply.bytes
    if as_json:
        print_json({"files": files, "bytes": freed})
    click.echo(f"zcfuse warm: {_files(files)}, {size(freed)} unlocked", err=True)
    return status


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(
                "" if speed is None else f"{size(int(speed))}/s", style="progress.data.speed"
            )

    columns = (
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(binary_units=True),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, advance=done)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"
