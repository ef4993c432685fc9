"""The benchmark of changes: its rows on small trees, and the mounts that it makes."""

from pathlib import Path

import pytest

from tests.support._capabilities import requires
from zcfuse.bench import (
    BACKING,
    SourceTree,
    Target,
    mountpoint_outside,
    run_bench,
    survey,
    tar_of,
    writable_targets,
    writing_place,
    writing_workloads,
)

FILES = 12


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    source = tmp_path / "source"
    source.mkdir()
    for index in range(FILES):
        (source / f"{index:02}").write_bytes(bytes(16384))
    return survey(str(source), FILES)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("zcfuse", marks=requires("mounting")),
        pytest.param("zcfuse union", marks=requires("mounting", "root")),
        pytest.param("mergerfs", marks=requires("mounting", "mergerfs")),
        pytest.param("bindfs", marks=requires("mounting", "bindfs")),
        pytest.param("overlayfs", marks=requires("root", "overlay layers")),
        pytest.param("fuse-overlayfs", marks=requires("mounting", "fuse-overlayfs")),
    ],
)
def test_every_change_is_made_on_every_mount_and_undone(tree: SourceTree, name: str):
    with (
        writing_place(tree) as place,
        tar_of(tree) as archive,
        mountpoint_outside(tree.root) as base,
    ):
        mounts = writable_targets(place, ["auto"], True, base)
        targets = [Target(BACKING), *(mount for mount in mounts if mount.name == name)]
        workloads = writing_workloads(archive, 150)
        report = run_bench(place, targets, 2, lambda _step: None, workloads)
        left = [path.name for path in Path(place.root).glob("*/*")]
    assert report.targets == (BACKING, name)
    assert [row.workload for row in report.rows] == [workload.name for workload in workloads]
    for row in report.rows:
        assert all(len(cell.samples_us) == 2 for cell in row.cells.values()), row
    assert set(left) == {"written"}


def test_the_measured_tree_is_left_alone(tree: SourceTree):
    with writing_place(tree) as place:
        assert not Path(place.root).is_relative_to(tree.root)
    assert not Path(place.root).exists()
