"""Finds the trees to freeze and the images to mount that a command line names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from zcfuse.cli._errors import CommandError
from zcfuse.cli._program_tree import is_program, load_program_tree
from zcfuse.cli.mount import ArchiveOptions, load, load_archive, load_archives
from zcfuse.control import check_layers, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zcfuse.cli.mount import Wanted
    from zcfuse.frozen import FrozenImage, FrozenTree
    from zcfuse.tree import Tree


class Freezable(NamedTuple):
    """A tree to freeze: its name, and the directories with its files."""

    name: str
    tree: Tree
    roots: Sequence[bytes] = ()


def freezable(wanted: Wanted) -> Freezable:
    """Return the tree that a command line names.

    Raises:
        MountError, CommandError: the tree is unavailable; the message says why.
        UsageError: the arguments contradict each other.
    """
    from zcfuse.tree import Mirror, Union, VirtualTree

    option = wanted.option()
    if option in {"--archive", "--archives"}:
        named = [*wanted.archives, *wanted.archive_directories]
        directory, _ = load_archives(
            wanted.archives, wanted.archive_directories, wanted.archive_options
        )
        return Freezable(os.path.abspath(named[0]), VirtualTree(directory))
    if wanted.manifest is not None:
        _require_no_archive_options(wanted.archive_options)
        return Freezable(os.path.abspath(wanted.manifest), VirtualTree(load(wanted.manifest)))
    if option == "--layer":
        _require_no_archive_options(wanted.archive_options)
        layers = tuple(check_source(layer) for layer in wanted.layers)
        check_layers(layers)
        return Freezable(":".join(layers), Union(layers), [_common(layers)])
    source = wanted.source
    if source is None:
        raise click.MissingParameter(param_hint="'SOURCE'", param_type="argument")
    if os.path.isfile(source):
        return Freezable(os.path.abspath(source), load_archive(source, wanted.archive_options))
    _require_no_archive_options(wanted.archive_options)
    if is_program(source):
        return Freezable(source, load_program_tree(source))
    shown = check_source(source)
    return Freezable(shown, Mirror(shown), [os.fsencode(shown)])


def is_image_file(path: str) -> bool:
    """Say whether a file is an image, by its first bytes; an unreadable file is not an image."""
    from zcfuse.frozen import is_image

    try:
        with open(path, "rb") as file:
            return is_image(file.read(16))
    except OSError:
        return False


def load_image(path: str) -> FrozenTree:
    """Return the tree of an image; raise CommandError with the reason in one line."""
    from zcfuse.frozen import FrozenTree, ImageError

    try:
        return FrozenTree(path)
    except ImageError as error:
        raise CommandError(str(error), usage=error.usage) from error


def open_image(path: str) -> FrozenImage:
    """Return an intact image; raise CommandError as `load_image`."""
    from zcfuse.frozen import FrozenImage, ImageError

    try:
        return FrozenImage(path)
    except ImageError as error:
        raise CommandError(str(error), usage=error.usage) from error


def _require_no_archive_options(given: ArchiveOptions) -> None:
    if given != ArchiveOptions():
        raise click.UsageError("--keep-index, --salvage and --unpack-budget are for archives only")


def _common(layers: Sequence[str]) -> bytes:
    """Return the nearest directory that holds all layers."""
    common = os.path.commonpath(layers)
    return os.fsencode(os.path.dirname(common) if common in layers else common)
