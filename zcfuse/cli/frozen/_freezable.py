"""Finds the tree to freeze that a command line names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from zcfuse.cli._program_tree import is_program, load_program_tree
from zcfuse.cli.mount import (
    ArchiveOptions,
    directories_of,
    load,
    load_archive,
    load_archives,
    load_layers,
    made_layers,
)
from zcfuse.control import check_layers, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zcfuse.cli.mount import ChosenSources
    from zcfuse.tree import Tree


class Freezable(NamedTuple):
    """A tree to freeze: its name, and the directories with its files."""

    name: str
    tree: Tree
    roots: Sequence[bytes] = ()


def freezable(wanted: ChosenSources) -> Freezable:
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
        directories = {layer: check_source(layer) for layer in directories_of(wanted)}
        check_layers(tuple(directories.values()))
        layers, _ = load_layers(wanted, directories)
        names = [directories.get(layer, os.path.abspath(layer)) for layer in wanted.layers]
        roots = [_common(list(directories.values()))] if directories else []
        return Freezable(":".join(names), Union(made_layers(layers)), roots)
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


def _require_no_archive_options(given: ArchiveOptions) -> None:
    if given != ArchiveOptions():
        raise click.UsageError("--keep-index, --salvage and --unpack-budget are for archives only")


def _common(layers: Sequence[str]) -> bytes:
    """Return the nearest directory that holds all layers."""
    common = os.path.commonpath(layers)
    return os.fsencode(os.path.dirname(common) if common in layers else common)
