"""Layers from Hypothesis: how to write them to disk, and what a union shows of them.

A layer maps names to a file's number, `Hidden`, or a `Below` with further names. There are few
names, so that layers overlap often.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st


@dataclass(frozen=True)
class Hidden:
    """A whiteout of this kind."""

    mark: str


@dataclass(frozen=True)
class Below:
    """A directory; with a mark it is opaque."""

    mark: str
    names: dict[str, Any] = field(hash=False)


Layer: TypeAlias = "dict[str, int | Hidden | Below]"
Shown: TypeAlias = dict[str, Any]
"""Maps names to a file's number, or to a directory's contents."""

NAMES: Final = ("a", "b", "c")
_NAMES: Final = st.sampled_from(NAMES)


def layer_lists(files: st.SearchStrategy[int]) -> st.SearchStrategy[list[Layer]]:
    """One to four layers, the topmost first, with directories in directories."""
    hidden = st.sampled_from([Hidden("device"), Hidden("file"), Hidden("attribute")])
    marks = st.sampled_from(["", "", "", "attribute", "file", "beside"])

    def directories(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Below]:
        return st.builds(Below, marks, st.dictionaries(_NAMES, inside, max_size=3))

    whatever = st.recursive(st.one_of(files, hidden), directories, max_leaves=5)
    # Directories as often as everything else, to get merged ones.
    inside = st.one_of(directories(whatever), whatever)
    return st.lists(st.dictionaries(_NAMES, inside, max_size=3), min_size=1, max_size=4)


def merged(layers: list[Layer]) -> Shown:
    """The contents that a union shows of its layers, the topmost first."""
    shown: Shown = {}
    for name in {name for layer in layers for name in layer}:
        parts: list[Layer] = []
        for found in (layer[name] for layer in layers if name in layer):
            if isinstance(found, Below):
                parts.append(found.names)
                if not found.mark:
                    continue
            elif isinstance(found, int) and not parts:
                shown[name] = found
            break
        if parts:
            shown[name] = merged(parts)
    return shown


def write_layer(directory: Path, layer: Layer, files: list[bytes]) -> None:
    """Make the directory and its contents."""
    directory.mkdir()
    for name, found in layer.items():
        path = directory / name
        if isinstance(found, int):
            path.write_bytes(files[found])
        elif isinstance(found, Hidden):
            _hide(path, found.mark)
        else:
            write_layer(path, found.names, files)
            _make_opaque(path, found.mark)


def _hide(path: Path, mark: str) -> None:
    """Write a whiteout; as an image's file if the filesystem supports no other."""
    with contextlib.suppress(OSError):
        if mark == "device":
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
            return
        if mark == "attribute":
            path.touch()
            os.setxattr(path, "user.overlay.whiteout", b"")
            return
    path.unlink(missing_ok=True)
    path.with_name(f".wh.{path.name}").touch()


def _make_opaque(path: Path, mark: str) -> None:
    with contextlib.suppress(OSError):
        if mark == "attribute":
            os.setxattr(path, "user.overlay.opaque", b"y")
            return
    if mark == "beside":
        path.with_name(f".wh.{path.name}").touch()
    elif mark:
        (path / ".wh..wh..opq").touch()
