"""``zcfuse bench``: measures the backing tree, mounts of it by zcfuse, and mounts by peers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem

from zcfuse.bench import (
    BACKING,
    LAYERS,
    PATHS,
    SIZES,
    SLICES,
    VARIANTS,
    WORKLOADS,
    WRITTEN_FILES,
    BenchReport,
    BenchRow,
    ClientError,
    SourceError,
    SourceTree,
    SweepReport,
    Target,
    frozen_targets,
    layers_of,
    mountpoint_outside,
    peer_targets,
    run_bench,
    run_sweep,
    split_path,
    survey,
    tar_of,
    tar_targets,
    temporary_tree,
    union_peer_targets,
    union_targets,
    view_targets,
    views_of,
    writable_targets,
    writing_place,
    writing_workloads,
    zcfuse_target,
)
from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError
from zcfuse.cli._examples import epilog
from zcfuse.cli._figures import progress, unmounting_when_ended
from zcfuse.cli._output import json_option, print_cells, print_json, size

# By other programs: a client and a daemon take turns.
_BUSY_LOAD: Final = 0.5
_OPENED_FILES: Final = 1000
_ROUNDS: Final = 5
_WRITING_ROUNDS: Final = 3  # each makes many files
_MOST_LAYERS: Final = 64  # mount(8) passes the names of so many to the kernel
_FEWEST_BYTES_A_CALL: Final = 64 << 10  # rows of larger calls appear as GB/s


class _Wanted(msgspec.Struct, frozen=True):
    """The choices of the options. `layers` is their number, or 0 without a union."""

    paths: Sequence[str]
    rounds: int
    peers: bool
    tar: bool
    layers: int
    views: bool
    frozen: bool


_TRANSFER: Final = "transfer"


class BenchCommand(click.Command):
    """``zcfuse bench``, which hands over to another command if its first word is ``transfer``.

    This cannot be a group, because SOURCE stands in the place of a command's name. A user writes
    ``./transfer`` for a directory of that name.
    """

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 (what click passes on)
    ) -> click.Context:
        """Make the context of the command that the arguments name."""
        if args[:1] == [_TRANSFER]:
            from zcfuse.cli.bench._transfer import transfer

            transfer.epilog = epilog(f"bench {_TRANSFER}")
            return transfer.make_context(f"{info_name} {_TRANSFER}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add a line about the other command, and the examples."""
        with formatter.section("Commands"):
            line = (
                "Ways to move a file's bytes, and what each costs (zcfuse bench transfer --help)."
            )
            formatter.write_dl([(_TRANSFER, line)])
        super().format_epilog(ctx, formatter)


def _sources(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the other command beside the directories."""
    commands = [CompletionItem(_TRANSFER)] if _TRANSFER.startswith(incomplete) else []
    # bash forgets what comes before directories.
    return _completion.directories(context, parameter, incomplete) + commands


@click.command(cls=BenchCommand)
@click.argument("source", required=False, shell_complete=_sources)
@click.option(
    "--paths",
    default="auto",
    show_default=True,
    metavar="P,...",
    help=f"Serving paths to mount by: auto, {', '.join(PATHS)}; or all. Each may end in "
    f"{', '.join(f'+{variant}' for variant in VARIANTS)}: without directory leases, with the "
    "promise that the tree does not change, with changes pushed to the kernel, over that "
    "transport.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    help=f"How often each row is measured (default: {_ROUNDS}, with --rw {_WRITING_ROUNDS}).",
)
@click.option(
    "--files",
    type=click.IntRange(1, 100_000),
    help=f"Small files to open (default: {_OPENED_FILES:,}), with --rw also to create and delete "
    f"(default: {WRITTEN_FILES:,}).",
)
@click.option(
    "--peers/--no-peers",
    default=True,
    help="Also mount mergerfs and bindfs; layers by overlayfs and fuse-overlayfs.",
)
@click.option(
    "--tar",
    is_flag=True,
    help="Also mount a tar archive of the files, plain and in gzip, by zcfuse and ratarmount.",
)
@click.option(
    "--layers",
    is_flag=True,
    help="Spread the files of SOURCE over layers, and mount these merged.",
)
@click.option(
    "--depth",
    type=click.IntRange(2, _MOST_LAYERS),
    help=f"The number of layers that --layers makes (default: {LAYERS}).",
)
@click.option(
    "--views",
    is_flag=True,
    help="Also mount views of the files: whole files, slices of a shard, a policy with leased"
    " answers, a filter, and a mirror that is traced.",
)
@click.option(
    "--frozen",
    is_flag=True,
    help="Also freeze what is mounted, and have the kernel serve the images: the tree or its"
    " layers, the archive of --tar, the manifest of slices of --views.",
)
@click.option(
    "--rw",
    "writing",
    is_flag=True,
    help="Instead, measure changes on writable mounts of temporary directories: writes, files made"
    " and deleted, an archive of the files of SOURCE unpacked and removed.",
)
@click.option(
    "--remote",
    is_flag=True,
    help="Instead, measure mounts of a temporary bucket, also by rclone, s3fs and fsspec; needs"
    " nginx.",
)
@click.option("--sweep", is_flag=True, help="Instead, find the best path for each request size.")
@json_option
def bench(
    source: str | None,
    paths: str,
    rounds: int | None,
    files: int | None,
    peers: bool,
    tar: bool,
    layers: bool,
    depth: int | None,
    views: bool,
    frozen: bool,
    writing: bool,
    remote: bool,
    sweep: bool,
    as_json: bool,
) -> int:
    """Measure the tree at SOURCE (default: a temporary one) directly and through mounts of it.

    The command only reads SOURCE: its largest file, and the files nearest to 16 KiB. It mounts all
    targets read-only, measures them in turn in each round, and unmounts them. Ratios compare with
    the backing tree: 1 is as fast, 2 takes twice the time. --tar also mounts a temporary archive
    of the opened files. --layers puts these files into temporary layers and mounts the layers
    instead of SOURCE. --rw measures changes to directories in TMPDIR.
    """
    if depth and not layers:
        raise CommandError("--depth is the number of layers: it needs --layers", usage=True)
    merged = (depth or LAYERS) if layers else 0
    rounds = rounds or (_WRITING_ROUNDS if writing else _ROUNDS)
    wanted = _Wanted(_chosen(paths), rounds, peers, tar, merged, views, frozen)
    if writing and (tar or layers or views or frozen or sweep):
        raise CommandError(
            "--rw measures changes: leave out --tar, --layers, --views, --frozen and --sweep",
            usage=True,
        )
    try:
        if remote:
            if source or files or writing or tar or layers or views or frozen or sweep:
                raise CommandError("--remote goes with --rounds, --peers and --json", usage=True)
            from zcfuse.cli.bench._remote import measure_remote

            measure_remote(rounds, peers=peers, as_json=as_json)
            return 0
        with (
            unmounting_when_ended(),
            _prepared(source, files or _OPENED_FILES) as (tree, base),
        ):
            if writing:
                _show(_written(tree, base, wanted, files or WRITTEN_FILES), as_json)
            elif sweep:
                _show(_swept(tree, base, rounds), as_json)
            else:
                _show(_measured(tree, base, wanted), as_json)
    except SourceError as error:
        raise CommandError(str(error), usage=source is not None) from error
    except ClientError as error:
        raise CommandError(str(error)) from error
    return 0


def _chosen(text: str) -> list[str]:
    known = ["auto", *PATHS]
    if text == "all":
        return known
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        path, variants = split_path(name)
        for variant in variants:
            if variant not in VARIANTS:
                raise CommandError(
                    f"--paths {name}: after a path choose one of +{', +'.join(VARIANTS)}",
                    usage=True,
                )
        if path not in known:
            raise CommandError(
                f"--paths {name}: choose one of {', '.join(known)}, or all", usage=True
            )
    return names


@contextlib.contextmanager
def _prepared(source: str | None, files: int) -> Iterator[tuple[SourceTree, str]]:
    """Yield the tree to measure, and a directory outside of it for the mount points."""
    if source is not None:
        with mountpoint_outside(source) as base:
            yield survey(source, files), base
        return
    with temporary_tree(files) as tree, mountpoint_outside(tree.root) as base:
        yield tree, base


def _measured(tree: SourceTree, base: str, wanted: _Wanted) -> BenchReport:
    with contextlib.ExitStack() as stack:
        targets = [Target(BACKING), *_targets(stack, tree, base, wanted)]
        step = stack.enter_context(progress(wanted.rounds * len(WORKLOADS) * len(targets)))
        return run_bench(tree, targets, wanted.rounds, step)


def _targets(
    stack: contextlib.ExitStack, tree: SourceTree, base: str, wanted: _Wanted
) -> list[Target]:
    """Return the targets to mount. Their temporary files live as long as `stack`."""
    frozen: dict[str, Sequence[str]] = {}
    if wanted.layers:
        layers = stack.enter_context(layers_of(tree, wanted.layers))
        targets = union_targets(layers, wanted.paths, base)
        targets += union_peer_targets(layers, base) if wanted.peers else []
        frozen[""] = [f"--layer={layer}" for layer in layers]
    else:
        mounted = [(path, os.path.join(base, path)) for path in wanted.paths]
        targets = [zcfuse_target(path, tree.root, mountpoint) for path, mountpoint in mounted]
        targets += peer_targets(tree.root, base) if wanted.peers else []
        frozen[""] = [tree.root]
    if wanted.views:
        views = stack.enter_context(views_of(tree))
        for path in wanted.paths:
            targets += view_targets(tree, views, path, base)
        frozen[SLICES] = [f"--tree={views[SLICES]}"]
    if wanted.tar:
        archive = stack.enter_context(tar_of(tree))
        targets += tar_targets(archive, base)
        frozen["tar"] = [archive]
    if wanted.frozen:
        targets += stack.enter_context(frozen_targets(tree, frozen, base))
    return targets


def _written(tree: SourceTree, base: str, wanted: _Wanted, files: int) -> BenchReport:
    small = msgspec.structs.replace(tree, large="")
    with writing_place(tree) as place, tar_of(small) as archive:
        workloads = writing_workloads(archive, files)
        mounts = writable_targets(place, wanted.paths, wanted.peers, base)
        targets = [Target(BACKING), *mounts]
        with progress(wanted.rounds * len(workloads) * len(targets)) as step:
            return run_bench(place, targets, wanted.rounds, step, workloads)


def _swept(tree: SourceTree, base: str, rounds: int) -> SweepReport:
    with progress(rounds * len(SIZES)) as step:
        return run_sweep(tree, base, rounds, step)


def _show(report: BenchReport | SweepReport, as_json: bool) -> None:
    if isinstance(report, BenchReport):
        if as_json:
            print_json(report_document(report))
        else:
            _print_bench(report)
    elif as_json:
        print_json(report)
    else:
        _print_sweep(report)


def report_document(report: BenchReport) -> dict[str, Any]:
    """Return the report as plain values, with medians and ratios beside the samples."""
    document: dict[str, Any] = msgspec.to_builtins(report)
    for shown, row in zip(document["rows"], report.rows, strict=True):
        for name, cell in row.cells.items():
            shown["cells"][name]["median_us"] = cell.median_us
            shown["cells"][name]["ratio"] = row.ratio(name)
    return document


def _print_bench(report: BenchReport) -> None:
    click.echo(
        f"{report.source} on {report.filesystem}, Linux {report.kernel}, {report.cpus} CPUs, "
        f"{report.rounds} rounds\n"
    )
    others = [name for name in report.targets if name != BACKING]
    columns = ["", "cache", BACKING, *others]
    rows = [_cells(row, others) for row in report.rows]
    print_cells("", columns, rows, frozenset({0, 1}))
    click.echo(
        "\nMedians, with the ratio to the time on the backing tree in brackets. Every figure "
        f"includes the client's loop: {report.loop_us:.2f} us a call. All rounds: --json."
    )
    if report.load > _BUSY_LOAD * report.cpus:
        click.echo(
            f"The machine was busy at the start (load {report.load:.1f}, {report.cpus} CPUs): a"
            " call that waits for a CPU takes milliseconds, and few of them change a figure."
        )
    for reason in sorted({cell.reason for row in report.rows for cell in row.cells.values()}):
        if reason:
            click.echo(f"-: {reason}")
    for name, reason in report.unavailable.items():
        click.echo(f"{name}: {reason}")


def _cells(row: BenchRow, others: list[str]) -> list[str]:
    shown = []
    for name in others:
        ratio = row.ratio(name)
        figure = _figure(row, name)
        shown.append(figure if ratio is None else f"{figure} ({ratio:.2f})")
    return [row.workload, row.cache, _figure(row, BACKING), *shown]


def _figure(row: BenchRow, name: str) -> str:
    cell = row.cells[name]
    if cell.median_us is None:
        return "-"
    if cell.gb_per_s and cell.bytes_per_operation >= _FEWEST_BYTES_A_CALL:
        return f"{cell.gb_per_s:.2f} GB/s"
    return f"{cell.median_us:.2f} us"


def _print_sweep(report: SweepReport) -> None:
    click.echo(f"Linux {report.kernel}, {report.rounds} rounds, O_DIRECT reads of each size\n")
    names = list(report.rows[0].cells) if report.rows else []
    columns = ["request", *names, "best", "best by\ndaemon CPU"]
    rows = []
    for row in report.rows:
        cells = [
            f"{row.cells[name].us_per_request:.1f} us / {row.cells[name].daemon_cpu_us:.1f}"
            for name in names
        ]
        rows.append([size(row.size), *cells, row.best("us_per_request"), row.best("daemon_cpu_us")])
    print_cells("", columns, rows, frozenset())
    click.echo("\nMedian time of a request / daemon CPU time for it, in microseconds.")
    for name, reason in report.unavailable.items():
        click.echo(f"{name}: {reason}")
