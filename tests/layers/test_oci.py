"""Layers of an OCI image, beside a model that unpacks one onto another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.layers import dump as dump_program
from tests.layers.conftest import Dump, LayersMounted, dump
from tests.layers.stacks import NAMES, Stack, oci_stack
from tests.layers.test_overlayfs import LEASES, listed_but_missing, require_same, shown
from tests.layers.tree_dump import tree_dump
from tests.support import requires
from zcfuse.tree import Union

SEEDS = range(4)
TREE_SEEDS = range(100, 120)
PREFIX = ".wh."
OPAQUE = ".wh..wh..opq"

Model = dict[str, Any]  # by name: a Model is a directory; "" holds its attributes


def unpacked(below: Model, layer: str) -> Model:
    """A directory of a layer, unpacked onto the layers below.

    A whiteout hides names below, never a name of the same layer.
    """
    names = os.listdir(layer)
    merged = {} if OPAQUE in names else {name: one for name, one in below.items() if name}
    for name in names:
        if name.startswith(PREFIX):
            merged.pop(name.removeprefix(PREFIX), None)
    for name in names:
        path = os.path.join(layer, name)
        if name.startswith(PREFIX):
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            earlier = merged.get(name, {})
            merged[name] = unpacked(earlier if is_directory(earlier) else {}, path)
        else:
            merged[name] = {"file": dump_program.described(os.fsencode(path))}
    return {**merged, "": dump_program.described(os.fsencode(layer))}


def is_directory(one: Model) -> bool:
    return "" in one


def flattened(model: Model, at: str = "") -> Dump:
    """The model as a dump, without link counts of directories."""
    found: Dump = {os.fsencode(at): {**model[""], "nlink": 0}}
    names = sorted(name for name in model if name)
    found[os.fsencode(at)]["names"] = [os.fsencode(name) for name in names]
    found[os.fsencode(at)]["types"] = {
        os.fsencode(name): is_directory(model[name]) for name in names
    }
    for name in names:
        path = os.path.join(at, name)
        one = model[name]
        found.update(
            flattened(one, path) if is_directory(one) else {os.fsencode(path): one["file"]}
        )
    return found


def modelled(stack: Stack) -> Dump:
    model: Model = {}
    for layer in reversed(stack.layers):
        model = unpacked(model, layer)
    return flattened(model)


def comparable(found: Dump) -> Dump:
    assert not listed_but_missing(found)
    for one in found.values():
        if "names" in one:
            one["nlink"] = 0
    return shown(found)


@pytest.mark.parametrize("seed", TREE_SEEDS)
def test_a_union_finds_what_an_image_unpacks_to(tmp_path: Path, seed: int) -> None:
    stack = oci_stack(tmp_path, seed)
    tree = Union(stack.layers)
    found = tree_dump(tree, [*NAMES, *(PREFIX + name for name in NAMES), OPAQUE])
    tree.close()
    require_same(comparable(found), modelled(stack))


@requires("mounting")
@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mounted_union_shows_what_an_image_unpacks_to(
    union: LayersMounted, tmp_path: Path, seed: int, lease: str
) -> None:
    stack = oci_stack(tmp_path, seed)
    names = [*NAMES, *(PREFIX + name for name in NAMES), OPAQUE]
    require_same(comparable(dump(union(stack, lease).mountpoint, names)), modelled(stack))
