"""Trees of a program, mounted by the kernel for the length of a block."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
import trio

from tests.cli.conftest import run_zcfuse
from tests.engine.conftest import seen_at
from tests.frozen.conftest import Frozen, hard_tree, seen, seen_in
from tests.support import requires
from zcfuse import (
    Bytes,
    Computed,
    Dir,
    File,
    KernelServed,
    Mirror,
    MountError,
    MountOptions,
    Slice,
    Tree,
    Union,
    load_manifest,
    mount,
    serve,
)
from zcfuse.frozen import FrozenTree
from zcfuse.tree import VirtualTree

pytestmark = requires("root", "erofs", "xattr")


def shown(tree: Tree | Dir, place: str, options: MountOptions | None = None) -> KernelServed:
    """Mount a tree, compare what the kernel shows with what the tree says, and unmount."""

    async def main() -> KernelServed:
        async with mount(tree, place, options, engine="kernel") as served:
            expected = seen(VirtualTree(tree) if isinstance(tree, Dir) else tree)
            assert seen_at(place) == expected
            listed = json.loads(run_zcfuse("list", "--json").stdout)
            assert [row["path"] for row in listed if row["mountpoint"] == place] == ["kernel"]
        return served

    served = trio.run(main)
    assert not os.path.ismount(place)
    return served


def test_a_mirror_is_a_bind_mount(tmp_path: Path, place: str) -> None:
    root = os.fsencode(tmp_path / "hard")
    os.mkdir(root)
    hard_tree(root)
    os.truncate(os.path.join(root, b"huge"), 100)  # the dump reads it
    os.removexattr(os.path.join(root, b"d"), b"trusted.overlay.opaque")
    served = shown(Mirror(root), place)
    assert (served.mountpoint, served.record.kind) == (place, "directory")


def test_a_union_of_directories_is_an_overlayfs(tmp_path: Path, place: str) -> None:
    for name in ("top", "bottom"):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / "both").write_text(name)
    served = shown(Union([tmp_path / "top", tmp_path / "bottom"]), place)
    assert (served.record.kind, served.entry.fstype) == ("layers", "overlay")


def test_a_union_with_a_tree_as_a_layer_is_frozen(tmp_path: Path, place: str) -> None:
    (tmp_path / "bottom").mkdir()
    (tmp_path / "bottom" / "f").write_text("f")
    tree = Union([Dir({"g": Bytes(b"g"), ".wh.h": Bytes(b"")}), tmp_path / "bottom"])
    assert shown(tree, place).record.kind == "image"


def test_a_manifest_of_slices_is_frozen_and_its_image_removed(tmp_path: Path, place: str) -> None:
    shard = tmp_path / "shard"
    shard.write_bytes(bytes(range(256)) * 1000)
    lines = [
        {"path": f"d/{number}", "file": str(shard), "offset": 512 * number, "length": 700}
        for number in range(50)
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = set(os.listdir(tempfile.gettempdir()))
    served = shown(load_manifest(manifest), place)
    assert served.record.kind == "image"
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("zcfuse-image-")]


def test_a_program_without_trio_mounts_by_the_kernel_as_well(tmp_path: Path, place: str) -> None:
    (tmp_path / "f").write_text("f")
    tree = Dir({"f": File(tmp_path / "f"), "g": Bytes(b"g")})
    with serve(tree, place, engine="kernel", noexec=True) as served:
        assert (served.mountpoint, served.record.kind) == (place, "image")
        assert seen_at(place) == seen(VirtualTree(tree))
        assert os.statvfs(place).f_flag & os.ST_NOEXEC
    assert not os.path.ismount(place)
    with pytest.raises(ValueError, match="'fuse' or 'kernel'"):
        serve(tree, place, engine="erofs")  # type: ignore[call-overload]


def test_a_frozen_part_stands_below_the_root_of_a_program(
    tmp_path: Path, place: str, frozen: Frozen
) -> None:
    root = os.fsencode(tmp_path / "hard")
    os.mkdir(root)
    hard_tree(root)
    os.truncate(os.path.join(root, b"huge"), 100)  # the dump reads it
    image, _ = frozen(Mirror(root), roots=[root])
    part = FrozenTree(image)
    with serve(Dir({"part": part, "mine": Bytes(b"mine")}), place):
        assert seen_at(os.path.join(place, "part")) == seen_in(image)
        assert (Path(place) / "mine").read_bytes() == b"mine"
    part.close()


def test_a_program_that_keeps_the_mount_busy_loses_it_after_the_wait(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "f").write_text("f")

    async def main() -> None:
        async with mount(
            Dir({"f": File(tmp_path / "f")}),
            place,
            MountOptions(unmount_wait=0.1),
            engine="kernel",
        ):
            holder = subprocess.Popen(["sleep", "60"], cwd=place)
        assert not os.path.ismount(place)
        holder.kill()
        holder.wait()

    trio.run(main)


def test_a_program_s_own_answers_and_options_of_fuse_are_refused(
    tmp_path: Path, place: str
) -> None:
    async def read(offset: int, size: int) -> bytes:
        return bytes(size)

    (tmp_path / "source").mkdir()
    mirror = Mirror(tmp_path / "source")
    computed = Dir({"c": Computed(5, read)})
    whole = Dir({"part": Slice(tmp_path / "missing", 0, 1)})
    for tree, options, why in (
        (computed, None, "a program makes its bytes"),
        (whole, MountOptions(path="splice"), "only FUSE gives --path"),
        (mirror, MountOptions(coherence="push"), "only FUSE gives --coherence"),
    ):
        with pytest.raises(MountError, match=why):
            shown(tree, place, options)
        assert not os.path.ismount(place)
    with pytest.raises(ValueError, match="'fuse' or 'kernel'"):
        mount(whole, place, engine="erofs")  # type: ignore[call-overload]
