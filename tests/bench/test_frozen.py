"""The frozen columns show the measured files, by the kernel alone."""

import filecmp
import os

import pytest

from tests.support import requires
from zcfuse.bench import (
    LAYERS,
    SLICES,
    SourceError,
    SourceTree,
    frozen_targets,
    layers_of,
    mountpoint_outside,
    started,
    tar_of,
    views_of,
)


@requires("root", "erofs")
def test_a_tree_its_layers_its_archive_and_its_slices_are_shown_by_the_kernel(
    tree: SourceTree,
) -> None:
    measured = sorted([*tree.small, tree.large])
    with (
        mountpoint_outside(tree.root) as base,
        views_of(tree) as views,
        tar_of(tree) as archive,
        layers_of(tree) as layers,
    ):
        trees = {
            "": [tree.root],
            SLICES: [f"--tree={views[SLICES]}"],
            "tar": [archive],
            "layers": [f"--layer={layer}" for layer in layers],
        }
        assert len(layers) == LAYERS
        with frozen_targets(tree, trees, base) as targets:
            for target in targets:
                os.mkdir(target.mountpoint)
                with started(target, tree.root) as shown:
                    assert shown.mount is not None
                    assert shown.mount.kind in ("overlay", "erofs")
                    same, *_ = filecmp.cmpfiles(tree.root, shown.root, measured, shallow=False)
                    assert sorted(same) == measured
                assert not os.path.ismount(target.mountpoint)


@requires("root")
def test_a_tree_that_cannot_be_frozen_is_an_error_that_says_why(tree: SourceTree) -> None:
    with (
        mountpoint_outside(tree.root) as base,
        pytest.raises(SourceError, match=r"zcfuse freeze: zcfuse: .*does not exist"),
        frozen_targets(tree, {"": ["/no/such/directory"]}, base),
    ):
        pass
