"""A union beside the kernel's overlayfs, and beside fuse-overlayfs, on the same layers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import join
from pathlib import Path
from typing import Any

import pytest

from tests.layers.conftest import Dump, LayersMounted, dump, joined, mounted_by
from tests.layers.stacks import ATTRIBUTE_WHITEOUTS, NAMES, Stack, overlay_stack
from tests.layers.tree_dump import tree_dump
from tests.support import requires
from zcfuse.tree import Union

OPTIONS = {"trusted": "", "user": ",userxattr", "links": ",redirect_dir=on,metacopy=on"}
KINDS = ["trusted", "user", "links"]
SEEDS = range(4)
TREE_SEEDS = range(100, 115)
LEASES = ["--directory-lease", "--no-directory-lease"]


def stack_of(kind: str, base: Path, seed: int) -> Stack:
    """A random stack of marks in one namespace; "links" adds metacopies and redirects."""
    namespace = "user" if kind == "user" else "trusted"
    return overlay_stack(base, seed, namespace, links=kind == "links")


@contextmanager
def overlayfs(kind: str, stack: Stack, base: Path) -> Iterator[str]:
    """The kernel's overlayfs, read-only."""
    mountpoint = base / "overlay"
    mountpoint.mkdir()
    # Relative paths: since util-linux 2.39 an option is limited to 255 bytes (fsconfig(2)).
    above = os.path.commonpath(stack.layers)
    layers = ":".join(os.path.relpath(layer, above) for layer in stack.layers)
    command = ["mount", "-t", "overlay", "-o", f"ro,lowerdir={layers}{OPTIONS[kind]}", "none"]
    with mounted_by(*command, str(mountpoint), cwd=above) as root:
        yield root


def shown(found: Dump) -> Dump:
    """A dump without names that are only listed, and without missing ones.

    Overlayfs lists the whiteouts of a directory that only one layer has. Beside whiteouts by
    attribute it omits names that give EIO.
    """
    for path, one in found.items():
        if "names" in one:
            there = [
                name for name in one["names"] if found[join(path, name)] not in ("ENOENT", "EIO")
            ]
            one.update(names=there, types={name: one["types"][name] for name in there})
    return {path: one for path, one in found.items() if one != "ENOENT"}


def listed_but_missing(found: Dump) -> list[bytes]:
    """Names that a listing has and a lookup does not find."""
    directories = {path: one for path, one in found.items() if "names" in one}
    listed = [join(path, name) for path, one in directories.items() for name in one["names"]]
    return [path for path in listed if found[path] == "ENOENT"]


def require_same(found: Dump, expected: Dump) -> None:
    """Assert equality, with the first few differences in the message."""
    differences = [
        (path, found.get(path), expected.get(path))
        for path in sorted({*found, *expected})
        if found.get(path) != expected.get(path)
    ]
    assert not differences, "\n".join(map(repr, differences[:5]))


@requires("root", "overlay layers")
@pytest.mark.parametrize("seed", TREE_SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_union_finds_what_the_kernels_overlayfs_finds(
    tmp_path: Path, kind: str, seed: int
) -> None:
    stack = stack_of(kind, tmp_path, seed)
    with overlayfs(kind, stack, tmp_path) as root:
        expected = shown(dump(root))
    tree = Union(stack.layers)
    found = tree_dump(tree, NAMES)
    tree.close()
    assert not listed_but_missing(found)
    require_same(shown(found), expected)


@requires("mounting", "root", "overlay layers")
@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mounted_union_shows_what_the_kernels_overlayfs_shows(
    union: LayersMounted, tmp_path: Path, kind: str, seed: int, lease: str
) -> None:
    stack = stack_of(kind, tmp_path, seed)
    with overlayfs(kind, stack, tmp_path) as root:
        expected = shown(dump(root))
    found = dump(union(stack, lease).mountpoint)
    assert not listed_but_missing(found)
    require_same(shown(found), expected)


def as_fuse_overlayfs_would(found: Dump) -> Dump:
    """The part where fuse-overlayfs agrees with the kernel.

    It differs in inode numbers and link counts, and 1.10 shows whiteouts by attribute as files.
    """
    left_out = {"ino", "nlink", "blocks", "xattrs"}
    return {
        path: one if isinstance(one, str) else _without(one, left_out)
        for path, one in found.items()
        if path.rpartition(b"/")[2] not in ATTRIBUTE_WHITEOUTS
    }


def _without(one: dict[str, Any], left_out: set[str]) -> dict[str, Any]:
    kept = {key: value for key, value in one.items() if key not in left_out}
    for key in ("names", "types"):
        if key in kept:
            among = kept[key]
            kept[key] = (
                [name for name in among if name not in ATTRIBUTE_WHITEOUTS]
                if isinstance(among, list)
                else {n: t for n, t in among.items() if n not in ATTRIBUTE_WHITEOUTS}
            )
    return kept


@requires("mounting", "fuse-overlayfs", "root")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mounted_union_shows_what_fuse_overlayfs_shows(
    union: LayersMounted, tmp_path: Path, seed: int
) -> None:
    stack = overlay_stack(tmp_path, seed, "trusted", attributes=False)
    mountpoint = tmp_path / "peer"
    mountpoint.mkdir()
    options = f"lowerdir={joined(stack)}"
    with mounted_by("fuse-overlayfs", "-o", options, str(mountpoint)) as root:
        expected = as_fuse_overlayfs_would(shown(dump(root)))
    require_same(as_fuse_overlayfs_would(shown(dump(union(stack).mountpoint))), expected)
