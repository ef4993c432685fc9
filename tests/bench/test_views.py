"""The measured views: they show the tree, and the data path answers for them."""

import filecmp
import os
from pathlib import Path

import msgspec
import pytest

from tests.support import requires
from zcfuse.admin.status import read_status
from zcfuse.bench import mountpoint_outside, running, survey, view_targets, views_of

FILES = 25


@pytest.mark.parametrize("view", ["files", "slices", "filter"])
@requires("mounting")
def test_a_view_shows_the_measured_files_without_an_upcall(tmp_path: Path, view: str) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(4 << 20))
    for index in range(FILES):
        (source / "d" / f"{index:02}").write_bytes(os.urandom(16384))
    tree = survey(str(source), FILES)
    measured = [*tree.small, tree.large]
    with mountpoint_outside(tree.root) as base, views_of(tree) as manifests:
        targets = view_targets(tree, manifests, "auto", base)
        target = next(one for one in targets if one.name == f"zcfuse {view}")
        os.mkdir(target.mountpoint)
        with running(target.argv, target.mountpoint) as mount:
            same, *_ = filecmp.cmpfiles(tree.root, mount.mountpoint, measured, shallow=False)
            assert sorted(same) == sorted(measured)
            asked = msgspec.to_builtins(read_status(mount.mountpoint))["control"]["upcalls"]
            assert not {"lookup", "getattr", "open", "readdir", "read"} & {*asked}
    assert not any(os.path.exists(manifest) for manifest in manifests.values())
