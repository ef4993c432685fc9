"""The measured views: they show the tree, and the data path answers for them."""

import filecmp
import os
from pathlib import Path

import msgspec
import pytest

from tests.support import requires
from zcfuse.admin.status import read_status
from zcfuse.bench import mountpoint_outside, started, survey, view_targets, views_of

FILES = 25


# The policy is asked once for each name, and the node of a first answer is Python's.
ASKED = {"policy": {"lookup", "getattr", "readdir"}}


@pytest.mark.parametrize("view", ["files", "slices", "policy", "filter", "traced"])
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
        with started(target, tree.root) as shown:
            mount = shown.mount
            assert mount is not None
            same, *_ = filecmp.cmpfiles(tree.root, mount.mountpoint, measured, shallow=False)
            assert sorted(same) == sorted(measured)
            asked = msgspec.to_builtins(read_status(mount.mountpoint))["control"]["upcalls"]
            unleased = {"lookup", "getattr", "open", "readdir", "read"} - ASKED.get(view, set())
            assert not unleased & {*asked}
            assert asked.get("lookup", 0) <= len(measured) + 2
    assert not any(os.path.exists(manifest) for manifest in manifests.values())
