"""Checks and reads the source of ``zcfuse mount``: SOURCE, or the options that replace it.

This happens before the daemon starts, so that the command reports an error itself and leaves
nothing mounted.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import click

from zcfuse.cli._errors import CommandError
from zcfuse.cli._program_tree import is_program, load_program_tree
from zcfuse.cli.frozen import is_image_file, load_image
from zcfuse.cli.mount._archives import ArchiveOptions, load_archive, load_archives
from zcfuse.cli.mount._by_kernel import (
    ByKernel,
    archive_by_kernel,
    directory_by_kernel,
    image_by_kernel,
    layers_by_kernel,
)
from zcfuse.cli.mount._manifest import load
from zcfuse.cli.mount._remote import (
    NO_OPTIONS,
    RemoteOptions,
    check_url,
    remote_maker,
    shown_remote,
)
from zcfuse.control import (
    check_apart,
    check_layers,
    check_mountpoint,
    check_options,
    check_source,
)
from zcfuse.linux import MountError, check_device
from zcfuse.options import MountOptions, RefusedOptionError
from zcfuse.remote import is_url

if TYPE_CHECKING:
    from zcfuse.engine import Upper
    from zcfuse.tree import Dir, Tree
    from zcfuse.tree.archive import Archive

LoadedLayer: TypeAlias = "str | Tree | Dir | Callable[[], Tree]"

# fstab(5) uses this name for a filesystem without a source.
NO_SOURCE: Final = "none"
_MANIFESTS: Final = (".toml", ".jsonl", ".ndjson")
_LONGEST_NAME_BYTES: Final = 2000  # fusermount3 adds options to the same page


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSources:
    """The sources on the command line: one kind, and options of archives only with archives."""

    source: str | None
    manifest: str | None
    layers: tuple[str, ...]
    archives: tuple[str, ...]
    archive_directories: tuple[str, ...]
    archive_options: ArchiveOptions
    upper: str | None = None
    work: str | None = None
    metacopy: bool = False
    redirect_dir: bool = False
    hide: tuple[str, ...] = ()
    remote_options: RemoteOptions = NO_OPTIONS
    # The mount exists, and this process may become its daemon: it must not look at it.
    mounted: bool = False

    def paths(self) -> list[str]:
        """Return the paths of the sources."""
        source = None if self.is_remote else self.source
        layers = [layer for layer in self.layers if not is_url(layer)]
        named = (source, self.manifest, self.upper, *layers, *self.archives)
        return [path for path in (*named, *self.archive_directories) if path is not None]

    @property
    def is_remote(self) -> bool:
        """Whether SOURCE is a URL."""
        return self.option() is None and self.source is not None and is_url(self.source)

    def urls(self) -> list[str]:
        """Return SOURCE and the layers that are URLs."""
        named = [*self.layers] if self.source is None or not self.is_remote else [self.source]
        return [text for text in named if is_url(text)]

    def option(self) -> str | None:
        """Return the option that replaces SOURCE; None without such an option.

        Raises:
            UsageError: options of different kinds replace SOURCE.
        """
        kinds = (
            ("--tree", self.manifest is not None),
            ("--layer", bool(self.layers)),
            ("--archive", bool(self.archives or self.archive_directories)),
        )
        named = [option for option, is_there in kinds if is_there]
        if len(named) > 1:
            raise click.UsageError(f"{' and '.join(named)} exclude each other: give one kind")
        if named == ["--archive"] and not self.archives:
            return "--archives"
        return named[0] if named else None


class Prepared(NamedTuple):
    """A checked mount: its name, its mount point, the maker of its tree, and its archives."""

    name: str
    where: str
    make_tree: Callable[[], Tree]
    archives: Sequence[Archive] = ()
    by_kernel: ByKernel | None = None
    hides: bool = False


def prepare(wanted: ChosenSources, mountpoint: str | None, options: MountOptions) -> Prepared:
    """Check and read the source of a mount.

    Parameters:
        wanted: the sources on the command line.
        mountpoint: the second argument; None if an option replaces the first.
        options: of the mount.

    Raises:
        MountError: a source or an option is unsuitable; the message names it and the remedy.
        UsageError: the arguments contradict each other.
    """
    prepared = _prepared(wanted, mountpoint, options)
    if not wanted.hide:
        return prepared
    _require_patterns(wanted.hide)
    make_tree = functools.partial(_filtered, prepared.make_tree, wanted.hide)
    return prepared._replace(make_tree=make_tree, hides=True)


def _prepared(wanted: ChosenSources, mountpoint: str | None, options: MountOptions) -> Prepared:
    option = wanted.option()
    if not wanted.urls() and wanted.manifest is None:
        _require_no_remote_options(wanted.remote_options)
    marks = wanted.metacopy or wanted.redirect_dir
    if option != "--layer" and (wanted.upper or wanted.work or marks):
        raise click.UsageError("--upper, --work, --metacopy and --redirect-dir are for --layer")
    if option is None:
        if wanted.source is None:
            raise click.UsageError("name SOURCE and MOUNTPOINT")
        return _of_source(wanted, _given(mountpoint, "MOUNTPOINT"), options)
    where = _only(option, wanted.source, mountpoint)
    if option in {"--archive", "--archives"}:
        return _of_archives(wanted, where, options)
    if option == "--layer":
        return _of_layers(wanted, where, options)
    _require_no_archive_options(wanted.archive_options, option)
    if wanted.manifest is not None:
        where = _check_mountpoint(wanted, where, options)
        name = os.path.abspath(wanted.manifest)
        shown = load(wanted.manifest, remote_maker(wanted.remote_options, options))
        if not shown.urls:
            _require_no_remote_options(wanted.remote_options)
        return Prepared(name, where, functools.partial(_put_together, shown))
    raise AssertionError(option)


def _of_source(wanted: ChosenSources, mountpoint: str, options: MountOptions) -> Prepared:
    source = _given(wanted.source, "SOURCE")
    if wanted.is_remote:
        return _of_url(source, wanted, mountpoint, options)
    if is_image_file(source):
        _require_no_archive_options(wanted.archive_options, source)
        where = _place(wanted, mountpoint)
        check_options(options)
        tree = load_image(source)
        return Prepared(tree.path, where, lambda: tree, by_kernel=image_by_kernel(tree))
    if os.path.isfile(source):
        where = _check_mountpoint(wanted, mountpoint, options)
        archive = load_archive(source, wanted.archive_options)
        name = os.path.abspath(source)
        plan = archive_by_kernel(archive, name)
        return Prepared(name, where, lambda: archive, [archive], plan)
    _require_no_archive_options(wanted.archive_options, source)
    if is_program(source):
        where = _check_mountpoint(wanted, mountpoint, options)
        made = load_program_tree(source)
        return Prepared(_named(source), where, lambda: made)
    (shown,), where = _check(wanted, (source,), mountpoint, options)
    make_tree = functools.partial(_mirrored, shown)
    return Prepared(shown, where, make_tree, by_kernel=directory_by_kernel(shown))


def _of_url(source: str, wanted: ChosenSources, mountpoint: str, options: MountOptions) -> Prepared:
    _require_no_archive_options(wanted.archive_options, shown_remote(source))
    check_url(source)
    if options.rw:
        raise RefusedOptionError("rw", True, "only a directory can be changed; leave this out")
    make_tree = functools.partial(remote_maker(wanted.remote_options, options), source)
    where = _check_mountpoint(wanted, mountpoint, options)
    return Prepared(shown_remote(source), where, make_tree)


def _of_archives(wanted: ChosenSources, mountpoint: str, options: MountOptions) -> Prepared:
    where = _check_mountpoint(wanted, mountpoint, options)
    paths = [*wanted.archives, *wanted.archive_directories]
    tree, indexed = load_archives(
        wanted.archives, wanted.archive_directories, wanted.archive_options
    )
    first = os.path.abspath(paths[0])
    name = first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"
    return Prepared(name, where, functools.partial(_put_together, tree), indexed)


def _of_layers(wanted: ChosenSources, mountpoint: str, options: MountOptions) -> Prepared:
    """Check directories first, because reading files may take long."""
    directories = directories_of(wanted)
    shown, where = _check(wanted, directories, mountpoint, options)
    named = dict(zip(directories, shown, strict=True))
    if wanted.upper and wanted.urls():
        raise click.UsageError("--upper: its layers are directories and archives, not URLs")
    layers, archives = load_layers(wanted, named, remote_maker(wanted.remote_options, options))
    names = tuple(named.get(layer, _layer_name(layer)) for layer in wanted.layers)
    upper = _upper(wanted, shown, where)
    names = names if upper is None else (upper.directory, *names)
    make_tree = functools.partial(_merged, layers, upper)
    by_kernel = layers_by_kernel(shown, upper) if len(shown) == len(layers) else None
    return Prepared(_joined(names), where, make_tree, archives, by_kernel)


def directories_of(wanted: ChosenSources) -> tuple[str, ...]:
    """Return the layers that are directories, or are missing."""
    return tuple(one for one in wanted.layers if not os.path.isfile(one) and not is_url(one))


def _layer_name(layer: str) -> str:
    return shown_remote(layer) if is_url(layer) else os.path.abspath(layer)


def load_layers(
    wanted: ChosenSources,
    directories: Mapping[str, str],
    remote: Callable[[str], Tree] | None = None,
) -> tuple[list[LoadedLayer], list[Archive]]:
    """Read the layers that are files.

    Parameters:
        wanted: the sources on the command line.
        directories: the checked path of each layer that is a directory.
        remote: makes the tree of a URL; None: refuse URLs.

    Returns:
        All layers, the topmost first, and the archives among them. For a URL it is a function that
        makes the tree.

    Raises:
        CommandError: a layer cannot be read.
        UsageError: options of archives, without an archive.
    """
    layers: list[LoadedLayer] = []
    archives: list[Archive] = []
    for layer in wanted.layers:
        if layer in directories:
            layers.append(directories[layer])
        elif is_url(layer):
            if remote is None:
                raise CommandError(f"{shown_remote(layer)}: a URL is no layer here", usage=True)
            check_url(layer)
            layers.append(functools.partial(remote, layer))
        elif is_image_file(layer):
            layers.append(load_image(layer))
        elif layer.endswith(_MANIFESTS):
            layers.append(load(layer, remote))
        else:
            archives.append(load_archive(layer, wanted.archive_options))
            layers.append(archives[-1])
    if not archives:
        _require_no_archive_options(wanted.archive_options, "--layer of a directory or a manifest")
    return layers, archives


def made_layers(layers: Sequence[LoadedLayer]) -> list[str | Tree | Dir]:
    """Make the trees of URLs among layers."""
    return [layer() if callable(layer) else layer for layer in layers]


def _upper(wanted: ChosenSources, layers: tuple[str, ...], where: str) -> Upper | None:
    """Check the directories that take the changes of a union; make the second if it may be."""
    marks = {"--metacopy": wanted.metacopy, "--redirect-dir": wanted.redirect_dir}
    given = [option for option, is_given in marks.items() if is_given]
    if wanted.upper is None:
        if given or wanted.work is not None:
            raise click.UsageError("--work, --metacopy and --redirect-dir are for --upper")
        return None
    if given and os.geteuid() != 0:
        raise click.UsageError(f"{given[0]}: only root can set its marks: leave it out")
    from zcfuse.engine import Upper

    directory = check_source(wanted.upper)
    work = wanted.work or f"{directory}.work"
    if wanted.work is None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(work, 0o700)
    work = check_source(work)
    check_layers((directory, work, *layers))
    for path in () if wanted.mounted else (directory, work):
        check_apart(path, where)
    return Upper(directory, work, metacopy=wanted.metacopy, redirect_dir=wanted.redirect_dir)


def _named(program: str) -> str:
    """Return what a program's tree is listed as: of a file, the absolute path."""
    where, _, name = program.rpartition(":")
    return f"{os.path.abspath(where)}:{name}" if where.endswith(".py") else program


def _require_no_remote_options(given: RemoteOptions) -> None:
    if given != NO_OPTIONS:
        raise click.UsageError(
            "--option, --cache-dir, --cache-size, --cache-floor, --connections and --deadline are"
            " for URLs"
        )


def _require_no_archive_options(given: ArchiveOptions, shown: str) -> None:
    if given != ArchiveOptions():
        raise click.UsageError(
            f"--keep-index, --salvage and --unpack-budget are for archives, not for {shown}"
        )


def _joined(layers: tuple[str, ...]) -> str:
    """Return the name of a union in the mount table; mount(2) takes at most a page."""
    name = ":".join(layers)
    if len(os.fsencode(name)) <= _LONGEST_NAME_BYTES or len(layers) == 1:
        return name
    return f"{layers[0]}:({len(layers) - 1} more layers)"


def _given(argument: str | None, name: str) -> str:
    if argument is None:
        raise click.MissingParameter(param_hint=f"'{name}'", param_type="argument")
    return argument


def _only(option: str, first: str | None, second: str | None) -> str:
    """Return the mount point if it is the only argument; click takes that for SOURCE."""
    if second is not None and first == NO_SOURCE:
        return second
    if second is not None:
        raise click.UsageError(f"{option} takes the place of SOURCE: leave {first!r} out")
    return _given(first, "MOUNTPOINT")


def _check(
    wanted: ChosenSources, sources: tuple[str, ...], mountpoint: str, options: MountOptions
) -> tuple[tuple[str, ...], str]:
    shown = tuple(check_source(source) for source in sources)
    check_layers(shown)
    where = _place(wanted, mountpoint)
    if not wanted.mounted:
        for source in shown:
            check_apart(source, where)
    check_options(options)
    check_device()
    return shown, where


def _place(wanted: ChosenSources, mountpoint: str) -> str:
    return mountpoint if wanted.mounted else check_mountpoint(mountpoint)


def _check_mountpoint(wanted: ChosenSources, mountpoint: str, options: MountOptions) -> str:
    where = _place(wanted, mountpoint)
    check_options(options)
    check_device()
    return where


def _require_patterns(hide: Sequence[str]) -> None:
    from zcfuse.datapath import NamePatterns

    try:
        NamePatterns([os.fsencode(pattern) for pattern in hide], [], [])
    except ValueError as error:
        raise MountError(f"--hide: {error}", usage=True) from error


# Each of these loads the trees on its first call: after the fork, and only for a valid command.
def _mirrored(source: str) -> Tree:
    from zcfuse.tree import Mirror

    return Mirror(source)


def _merged(layers: Sequence[LoadedLayer], upper: Upper | None) -> Tree:
    from zcfuse.tree import Dir, Union

    made = made_layers(layers)
    for layer in made:
        if isinstance(layer, Dir):
            layer.subtrees()  # a URL that does not answer fails the mount
    if upper is None:
        return Union(made)
    return Union(
        made,
        upper=upper.directory,
        work=upper.work,
        metacopy=upper.metacopy,
        redirect_dir=upper.redirect_dir,
    )


def _filtered(make_tree: Callable[[], Tree], hide: Sequence[str]) -> Tree:
    from zcfuse.tree import Filter

    return Filter(make_tree(), hide=hide)


def _put_together(root: Dir) -> Tree:
    from zcfuse.tree import VirtualTree

    root.subtrees()  # a URL that does not answer fails the mount
    return VirtualTree(root)
