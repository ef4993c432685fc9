"""``zcfuse bench transfer``: measures ways to move a file's bytes, with and without mounts."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Final

import click

from zcfuse.bench import ClientError, SourceError, SourceFile, existing_file, survey, temporary_file
from zcfuse.bench.transfer import (
    CACHES,
    COLUMNS,
    METHODS,
    SINKS,
    Plan,
    TransferReport,
    run_transfer,
    steps_of,
)
from zcfuse.cli._errors import CommandError
from zcfuse.cli._figures import progress, unmounting_when_ended
from zcfuse.cli._output import json_option, print_json
from zcfuse.cli._parameters import Size
from zcfuse.cli.bench._transfer_tables import print_report

_DEFAULT_SIZE: Final = 64 << 20
_PAGE: Final = 4096
_LARGEST_BLOCK: Final = 64 << 20
_NATIVE: Final = "zcfuse.bench.transfer._transfer_native"


_Command = Callable[..., int]


def _names(option: str, known: Sequence[str]) -> Callable[[_Command], _Command]:
    """Make an option that takes some of `known`, separated by commas; the default is all."""

    def chosen(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
        if text == "all":
            return tuple(known)
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise CommandError(
                    f"--{option} {name}: choose one of {', '.join(known)}, or all", usage=True
                )
        if not names:
            raise CommandError(f"--{option}: name at least one of {', '.join(known)}", usage=True)
        return tuple(name for name in known if name in names)

    return click.option(
        f"--{option}",
        default="all",
        show_default=True,
        metavar="NAME,...",
        callback=chosen,
        help=f"Of {', '.join(known)}.",
    )


@click.command()
@click.argument("source", required=False)
@click.option(
    "--size", "wanted", type=Size(), metavar="BYTES", help="Bytes of each transfer. [default: 64M]"
)
@click.option(
    "--block",
    type=Size(),
    default="1M",
    show_default=True,
    metavar="BYTES",
    help="Bytes of a system call, a multiple of 4096.",
)
@_names("methods", [method.name for method in METHODS])
@_names("columns", COLUMNS)
@_names("sinks", SINKS)
@_names("caches", CACHES)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--latency/--no-latency", default=True, help="Also time single reads of 4 KiB, warm.")
@click.option("--html", metavar="FILE", help="Also write a page with plots (needs matplotlib).")
@click.option("--png", metavar="DIR", help="Also write the plots there, light and dark.")
@json_option
def transfer(
    source: str | None,
    wanted: int | None,
    block: int,
    methods: tuple[str, ...],
    columns: tuple[str, ...],
    sinks: tuple[str, ...],
    caches: tuple[str, ...],
    rounds: int,
    latency: bool,
    html: str | None,
    png: str | None,
    as_json: bool,
) -> int:
    """Move the bytes of SOURCE by every method that Linux has, and count the cost of each.

    SOURCE is a file, or a directory of which the command takes the largest file. The default is a
    temporary file. The command only reads it: directly, and from read-only mounts by each serving
    path. Each method first sends the file's beginning to a receiver that compares it. Then the
    command measures the methods in rounds.

    Caches: cold, nothing of the file is in memory. Served, the backing file is in memory and the
    mount's own cache is empty, so the daemon serves each byte. Warm, both are filled. Sinks: tcp
    is a connection on loopback; copy_file_range takes a file only.
    """
    _require_native()
    _require_places(html, png)
    plan = Plan(methods, sinks, columns, caches, rounds, _checked_block(block), latency)
    if not plan.steps:
        raise CommandError(
            "nothing to measure: copy-file-range is for --sinks file, and no other method",
            usage=True,
        )
    report = _measured(source, _checked_size(wanted), plan)
    _write(report, html, png)
    if as_json:
        print_json(report.document())
    else:
        print_report(report)
    if report.differences:
        raise CommandError("; ".join(report.differences))
    return 0


def _require_native() -> None:
    if importlib.util.find_spec(_NATIVE) is None:
        raise CommandError("the native module of the client is missing: build zcfuse again")


def _require_places(html: str | None, png: str | None) -> None:
    """Refuse an output that cannot be written, before minutes of measuring."""
    if html is None and png is None:
        return
    option = "--html" if html is not None else "--png"
    if importlib.util.find_spec("matplotlib") is None:
        raise CommandError(f"{option} needs matplotlib: pip install 'zcfuse[plots]'")
    if html is not None and not os.path.isdir(os.path.dirname(html) or "."):
        raise CommandError(f"--html {html}: its directory does not exist; create it", usage=True)
    if html is not None and os.path.isdir(html):
        raise CommandError(f"--html {html}: is a directory; name a file in it", usage=True)
    if png is not None and os.path.exists(png) and not os.path.isdir(png):
        raise CommandError(f"--png {png}: is no directory; name another", usage=True)


def _write(report: TransferReport, html: str | None, png: str | None) -> None:
    # matplotlib is an optional dependency, and takes a while to load.
    if html is not None:
        from zcfuse.bench.transfer import html_of

        with open(html, "w", encoding="utf-8") as file:
            file.write(html_of(report))
    if png is not None:
        from zcfuse.bench import transfer as plots

        os.makedirs(png, exist_ok=True)
        for plot in plots.plots_of(report):
            for theme in (plots.LIGHT, plots.DARK):
                name = os.path.join(png, f"{plot.name}-{theme.name}.png")
                with open(name, "wb") as image:
                    image.write(plots.png(plot, theme))


def _checked_size(wanted: int | None) -> int:
    if wanted is not None and wanted <= 0:
        raise CommandError("--size: give at least one byte", usage=True)
    return wanted or _DEFAULT_SIZE


def _checked_block(block: int) -> int:
    if block % _PAGE or not _PAGE <= block <= _LARGEST_BLOCK:
        raise CommandError(
            f"--block {block}: give a multiple of {_PAGE}, up to {_LARGEST_BLOCK >> 20}M",
            usage=True,
        )
    return block


def _measured(source: str | None, size: int, plan: Plan) -> TransferReport:
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(unmounting_when_ended())
            step = stack.enter_context(progress(1 + steps_of(plan)))
            step("preparing the file")
            opened = _file(source, size)
            return run_transfer(stack.enter_context(opened), plan, step)
    except SourceError as error:
        raise CommandError(str(error), usage=source is not None) from error
    except ClientError as error:
        raise CommandError(f"{source or 'the temporary file'}: {error}") from error


def _file(source: str | None, size: int) -> contextlib.AbstractContextManager[SourceFile]:
    if source is None:
        return temporary_file(size)
    if not os.path.isdir(source):
        return existing_file(source, size)
    tree = survey(source, 1)
    if not tree.large:
        raise SourceError(f"{source}: no file of 4 MiB or more in it; name a file")
    return existing_file(os.path.join(tree.root, tree.large), size)
