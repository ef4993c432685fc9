"""Random unions against a plain-Python model, without a mount.

tests/integration/test_random_trees.py mounts such unions among other entries.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.layers.random_layers import NAMES, Layer, Shown, layer_lists, merged, write_layer
from zcfuse.tree import Node, Union

FILES = [b"", b"one", b"other" * 1000]


def found(tree: Union, node: Node) -> Shown:
    """The names that the tree lists and finds below a directory; both must agree."""
    shown: Shown = {}
    with_dots = [(name, below) for _, name, below, _ in tree.listing(node).entries(0)]
    listed = {name.decode(): below for name, below in with_dots if name not in (b".", b"..")}
    assert len(listed) == len(with_dots) - 2
    for name in {*NAMES, *listed}:
        if name not in listed:
            with pytest.raises(FileNotFoundError):
                tree.lookup(node, name.encode())
            continue
        below, attributes = tree.lookup(node, name.encode())
        assert below.identity == listed[name].identity
        if stat.S_ISDIR(attributes.mode):
            shown[name] = found(tree, below)
            continue
        file = tree.open(below)
        shown[name] = FILES.index(file.pread(attributes.size + 1, 0))
        file.close()
    return shown


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers=layer_lists(st.integers(0, len(FILES) - 1)))
def test_a_random_union_is_what_the_model_says(layers: list[Layer]) -> None:
    base = Path(tempfile.mkdtemp())
    try:
        for number, layer in enumerate(layers):
            write_layer(base / str(number), layer, FILES)
        tree = Union([base / str(number) for number in range(len(layers))], trusted=True)
        assert found(tree, tree.root) == merged(layers)
        tree.close()
    finally:
        shutil.rmtree(base)
