"""The measured union: what its layers show, and which programs mount them."""

import filecmp
import os
from pathlib import Path

import pytest

from tests.support._capabilities import requires
from zcfuse.bench import (
    BACKING,
    LAYERS,
    SourceError,
    SourceTree,
    Target,
    layers_of,
    mountpoint_outside,
    run_bench,
    running,
    survey,
    union_peer_targets,
    union_targets,
)


def names_below(root: str) -> set[str]:
    return {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, _, names in os.walk(root)
        for name in names
    }


def targets_of(layers: tuple[str, ...], base: str) -> list[Target]:
    return [*union_targets(layers, ["pool"], base), *union_peer_targets(layers, base)]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("zcfuse pool", marks=requires("mounting")),
        pytest.param("overlayfs", marks=requires("root", "overlay layers")),
        pytest.param("fuse-overlayfs", marks=requires("mounting", "fuse-overlayfs")),
    ],
)
def test_layers_merged_by_anybody_are_the_tree(tree: SourceTree, name: str):
    measured = [*tree.small, tree.large]
    with mountpoint_outside(tree.root) as base, layers_of(tree) as layers:
        target = next(one for one in targets_of(layers, base) if one.name == name)
        os.mkdir(target.mountpoint)
        with running(target.argv, target.mountpoint) as mount:
            assert names_below(mount.mountpoint) == set(measured)
            same, *_ = filecmp.cmpfiles(tree.root, mount.mountpoint, measured, shallow=False)
            assert sorted(same) == sorted(measured)
        assert not os.path.ismount(target.mountpoint)
    assert not os.path.exists(layers[0])


def test_every_layer_has_files_and_the_lower_ones_such_as_are_hidden(tree: SourceTree):
    with layers_of(tree) as layers:
        found = [names_below(layer) for layer in layers]
        assert len(set(layers)) == LAYERS
        assert all(names & set(tree.small) for names in found)
        assert found[0] & found[2]
        assert set.union(*found) > {*tree.small, tree.large}


def test_layers_that_do_not_fit_are_refused(tmp_path: Path):
    for name in ("a", "b"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 43)
    tree = survey(str(tmp_path), 10)
    with pytest.raises(SourceError, match="--layers"), layers_of(tree):
        pytest.fail("they do not fit")


def test_who_cannot_merge_layers_here_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    kernel, fuse = union_peer_targets(["/a", "/b"], "/base")
    assert kernel.missing == "only root may mount it"
    assert "apt-get install fuse-overlayfs" in fuse.missing


@requires("mounting", "root", "overlay layers")
def test_the_backing_files_stay_in_memory_when_overlayfs_is_measured(tree: SourceTree):
    """Dropping the pages of a file in overlayfs would drop those of the layer's file."""
    with mountpoint_outside(tree.root) as base, layers_of(tree) as layers:
        targets = [one for one in targets_of(layers, base) if one.name == "overlayfs"]
        report = run_bench(tree, [Target(BACKING), *targets], 1, lambda _step: None)
        with running(targets[0].argv, targets[0].mountpoint) as mount:
            assert mount.kind == "overlay"
    assert report.targets == (BACKING, "overlayfs")
    assert all(row.cells["overlayfs"].samples_us for row in report.rows)
