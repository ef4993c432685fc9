"""A union whose layers are archives, manifests and directories, beside the same layers unpacked."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tests.layers.conftest import Dump, LayersMounted, dump
from tests.layers.stacks import NAMES, Stack, oci_stack
from tests.layers.test_overlayfs import LEASES, require_same, shown
from tests.layers.tree_dump import tree_dump
from tests.support import requires
from zcfuse.tree import Bytes, Dir, Union
from zcfuse.tree.archive import Archive, Keep

SEEDS = range(4)
TREE_SEEDS = range(100, 112)
# Attributes that an archive preserves; an archive's FIFO is left out.
_KEPT = ("mode", "owner", "size", "bytes", "target", "names")


def packed(stack: Stack, base: Path, first: int) -> Stack:
    """The stack with every second layer, from `first` on, packed into a tar archive."""
    layers = list(stack.layers)
    for number in range(first, len(layers), 2):
        archive = str(base / f"layer{number}.tar")
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(layers[number], arcname=".")
        layers[number] = archive
    return Stack(tuple(layers))


def comparable(found: Dump) -> Dump:
    """The attributes that both show of each path, with mtimes in whole seconds."""
    return {
        path: {key: one[key] for key in _KEPT if key in one} if isinstance(one, dict) else one
        for path, one in shown(found).items()
    }


def without_fifos(stack: Stack) -> Stack:
    for layer in stack.layers:
        for directory, _, names in os.walk(layer):
            for name in names:
                path = Path(directory, name)
                if path.is_fifo():
                    path.unlink()
    return stack


@pytest.mark.parametrize("seed", TREE_SEEDS)
def test_a_union_finds_in_archives_what_it_finds_in_them_unpacked(
    tmp_path: Path, seed: int
) -> None:
    stack = without_fifos(oci_stack(tmp_path, seed))
    plain = Union(stack.layers)
    mixed = Union(
        [
            Archive(layer, keep=Keep.NOT) if layer.endswith(".tar") else layer
            for layer in packed(stack, tmp_path, seed % 2).layers
        ]
    )
    require_same(comparable(tree_dump(mixed, NAMES)), comparable(tree_dump(plain, NAMES)))
    mixed.close()
    plain.close()


@requires("mounting")
@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mount_shows_archives_as_layers_as_it_shows_them_unpacked(
    union: LayersMounted, tmp_path: Path, seed: int, lease: str
) -> None:
    stack = without_fifos(oci_stack(tmp_path, seed))
    mixed = union(packed(stack, tmp_path, seed % 2), lease, "--keep-index", "no")
    plain = union(stack, lease)
    require_same(
        comparable(dump(mixed.mountpoint, NAMES)), comparable(dump(plain.mountpoint, NAMES))
    )
    asked = mixed.status()["control"]["upcalls"].get("lookup", 0)
    assert (asked == 0) == (lease == LEASES[0])


@requires("mounting")
def test_a_manifest_is_a_layer(union: LayersMounted, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    (below / "old").write_text("old")
    (below / "kept").write_text("kept")
    manifest = tmp_path / "top.toml"
    manifest.write_text('[[node]]\npath = "old"\ntext = "new"\n')
    mounted = union(Stack((str(manifest), str(below))))
    names = {name: Path(mounted.mountpoint, name).read_text() for name in ("old", "kept")}
    assert names == {"old": "new", "kept": "kept"}


def test_a_program_s_directory_is_a_layer(tmp_path: Path) -> None:
    (tmp_path / "gone").write_text("gone")
    (tmp_path / "kept").write_text("kept")
    tree = Union([Dir({".wh.gone": Bytes(b""), "new": Bytes(b"new")}), tmp_path])
    assert tree_dump(tree, NAMES)[b""]["names"] == [b"kept", b"new"]
    tree.close()
