"""The files that a view is given: a directory, paths, or paths by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from zcfuse.arguments import require_type

Path: TypeAlias = str | os.PathLike[str]
Files: TypeAlias = Path | Iterable[Path] | Mapping[str, Path]
"""A directory: all regular files below it, by their paths from it. A mapping: files by the paths
that they are to have. An iterable: files by their own names."""


def files_of(files: Files) -> dict[str, str]:
    """Return files by the paths that they are to have.

    Raises:
        OSError: the directory cannot be listed.
        ValueError: two files of an iterable have one name.
    """
    if isinstance(files, str | os.PathLike):
        return dict(_below(os.fspath(files)))
    if isinstance(files, Mapping):
        return {name: os.fspath(path) for name, path in files.items()}
    require_type("files", files, Iterable, "a directory, paths, or paths by name")
    named: dict[str, str] = {}
    for path in [os.fspath(path) for path in files]:
        name = os.path.basename(path)
        if named.setdefault(name, path) != path:
            raise ValueError(f"{named[name]!r} and {path!r} have one name: give a mapping")
    return named


def _below(top: str) -> Iterator[tuple[str, str]]:
    left = [""]
    while left:
        directory = left.pop()
        with os.scandir(os.path.join(top, directory)) as found:
            for entry in sorted(found, key=lambda entry: entry.name):
                path = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    left.append(path)
                elif entry.is_file(follow_symlinks=False):
                    yield path, os.path.join(top, path)
