"""A mounted union: the serving paths and names of its files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import kernel_mount
from tests.integration.counts import counts
from tests.layers.conftest import LayersMounted, dump, mounted_by
from tests.layers.stacks import Stack
from tests.layers.test_overlayfs import LEASES, overlayfs, require_same
from tests.support import Daemon, OrdinaryUser, requires

pytestmark = requires("mounting")


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """Three layers, each with one file, of equal size and different bytes."""
    layers = [tmp_path / name for name in ("top", "middle", "bottom")]
    for layer in layers:
        (layer / "d").mkdir(parents=True)
        (layer / "d" / layer.name).write_bytes(layer.name.encode() * 50_000)
        (layer / "d" / "same").write_text(layer.name)
    return Stack(tuple(map(str, layers)))


def read(path: str) -> bytes:
    return subprocess.run(["cat", path], capture_output=True, timeout=20, check=True).stdout


@pytest.mark.parametrize("lease", LEASES)
@pytest.mark.parametrize("path", ["naive", "upcall", "pool", "mmap", "splice"])
def test_every_serving_path_serves_files_of_every_layer(
    union: LayersMounted, stack: Stack, path: str, lease: str
) -> None:
    daemon = union(stack, "--path", path, lease)
    for layer in ("top", "middle", "bottom"):
        assert read(daemon.path("d", layer)) == layer.encode() * 50_000
    assert read(daemon.path("d", "same")) == b"top"


@requires("passthrough")
@pytest.mark.parametrize("lease", LEASES)
def test_files_of_every_layer_pass_through(union: LayersMounted, stack: Stack, lease: str) -> None:
    daemon = union(stack, "--path", "passthrough", lease)
    for layer in ("top", "middle", "bottom"):
        assert read(daemon.path("d", layer)) == layer.encode() * 50_000
    assert counts(daemon).opens == {"passthrough": 3}
    assert counts(daemon).reads == 0


@requires("root", "overlay layers")
@pytest.mark.parametrize("lease", LEASES)
def test_a_metacopy_passes_the_bytes_below_through_and_shows_its_own_mode(
    union: LayersMounted, stack: Stack, lease: str
) -> None:
    top = os.path.join(stack.layers[0], "d", "bottom")
    with open(top, "wb") as file:
        file.truncate(len("bottom") * 50_000)
    os.chmod(top, 0o600)
    os.setxattr(top, "trusted.overlay.metacopy", b"")
    daemon = union(stack, lease)
    assert read(daemon.path("d", "bottom")) == b"bottom" * 50_000
    listed = dump(daemon.mountpoint, ())
    assert listed[b"d/bottom"]["mode"] == "0o100600"
    assert listed[b"d/bottom"]["xattrs"] == {}


def written_by_overlayfs(stack: Stack, tmp_path: Path) -> Stack:
    """The layers with one on top in which the kernel has noted renames and changes of mode."""
    links = "redirect_dir=on,metacopy=on"
    for name in ("upper", "work", "writable"):
        (tmp_path / name).mkdir()
    lower = ":".join(os.path.basename(layer) for layer in stack.layers)
    options = f"lowerdir={lower},upperdir=upper,workdir=work,{links}"
    command = ["mount", "-t", "overlay", "-o", options, "none", str(tmp_path / "writable")]
    with mounted_by(*command, cwd=str(tmp_path)) as root:
        tree = Path(root)
        os.chmod(tree / "d" / "bottom", 0o600)
        (tree / "d" / "bottom").rename(tree / "metacopy")
        (tree / "d").rename(tree / "near")
        (tree / "far").mkdir()
        (tree / "deep" / "inner").rename(tree / "far" / "moved")
        os.chmod(tree / "far" / "moved" / "file", 0o640)
        (tree / "near" / "new").write_text("new")
        (tree / "near" / "middle").unlink()
    return Stack((str(tmp_path / "upper"), *stack.layers))


@requires("root", "overlay layers", "passthrough")
def test_what_overlayfs_wrote_with_redirects_and_metacopies_costs_no_upcall(
    union: LayersMounted, stack: Stack, tmp_path: Path
) -> None:
    inner = Path(stack.layers[2]) / "deep" / "inner"
    (inner / "below").mkdir(parents=True)
    (inner / "file").write_bytes(b"inner" * 10_000)
    (inner / "below" / "leaf").write_text("leaf")
    written = written_by_overlayfs(stack, tmp_path)
    with overlayfs("links", written, tmp_path) as root:
        expected = dump(root)
    marks = [os.listxattr(Path(written.layers[0]) / name) for name in ("metacopy", "far/moved")]
    assert "trusted.overlay.metacopy" in marks[0]
    assert "trusted.overlay.redirect" in marks[1]
    daemon = union(written, "--path", "passthrough")
    require_same(dump(daemon.mountpoint), expected)
    assert read(daemon.path("metacopy")) == b"bottom" * 50_000
    assert read(daemon.path("far", "moved", "file")) == b"inner" * 10_000
    assert counts(daemon).control["upcalls"].keys() <= {"init", "forget"}
    assert counts(daemon).opens.keys() == {"passthrough"}
    assert counts(daemon).reads == 0


@requires("root")
@pytest.mark.parametrize("lease", LEASES)
def test_inode_numbers_of_layers_on_other_filesystems_are_others(
    union: LayersMounted, tmp_path: Path, lease: str
) -> None:
    layers = [tmp_path / "one", tmp_path / "other"]
    for layer in layers:
        layer.mkdir()
    with (
        kernel_mount("-t", "tmpfs", "zcfuse-tests", str(layers[0])),
        kernel_mount("-t", "tmpfs", "zcfuse-tests", str(layers[1])),
    ):
        for layer in layers:
            for number in range(20):
                (layer / f"{layer.name}{number}").touch()
        daemon = union(Stack(tuple(map(str, layers))), lease)
        first, again = dump(daemon.mountpoint, ()), dump(daemon.mountpoint, ())
        daemon.unmount()
    assert len(first) == 41
    assert len({one["ino"] for one in first.values()}) == 41
    assert {path: one["ino"] for path, one in first.items()} == {
        path: one["ino"] for path, one in again.items()
    }


@pytest.mark.parametrize("lease", LEASES)
def test_a_change_in_any_layer_shows_after_the_cache_timeout(
    union: LayersMounted, stack: Stack, lease: str
) -> None:
    daemon = union(stack, "--cache-timeout", "0", lease)
    new = Path(stack.layers[2]) / "d" / "new"
    new.write_text("new")
    assert read(daemon.path("d", "new")) == b"new"
    (Path(stack.layers[0]) / "d" / ".wh.new").touch()
    assert dump(daemon.mountpoint, ("new",))[b"d/new"] == "ENOENT"
    assert b"new" not in dump(daemon.mountpoint, ())[b"d"]["names"]


def test_a_union_costs_no_upcall(union: LayersMounted, stack: Stack) -> None:
    (Path(stack.layers[1]) / "d" / ".wh.bottom").touch()
    daemon = union(stack)
    assert dump(daemon.mountpoint, ("missing",))[b"d/missing"] == "ENOENT"
    assert counts(daemon).control["upcalls"].keys() <= {"init", "forget"}


@requires("root", "overlay layers")
def test_only_what_must_not_be_followed_is_asked_of_control(
    union: LayersMounted, tmp_path: Path, stack: Stack
) -> None:
    moved = Path(stack.layers[0]) / "moved"
    moved.mkdir()
    os.setxattr(moved, "trusted.overlay.redirect", b"d")
    refused = Path(stack.layers[0]) / "refused"
    refused.mkdir()
    os.setxattr(refused, "user.overlay.redirect", b"d")
    daemon = union(stack)
    dump(os.path.join(daemon.mountpoint, "d"), ())
    assert read(daemon.path("moved", "bottom")) == b"bottom" * 50_000
    before = counts(daemon).control["upcalls"]
    assert before.keys() <= {"init", "forget"}
    assert dump(daemon.mountpoint, ())[b"refused"] == "EIO"
    assert counts(daemon).control["upcalls"]["lookup"] > 0


@requires("root", "overlay layers")
def test_with_push_control_answers_for_what_a_redirect_leads_to(
    union: LayersMounted, stack: Stack
) -> None:
    moved = Path(stack.layers[0]) / "moved"
    moved.mkdir()
    os.setxattr(moved, "trusted.overlay.redirect", b"d")
    daemon = union(stack, "--coherence", "push", "--cache-timeout", "0")
    assert read(daemon.path("moved", "bottom")) == b"bottom" * 50_000
    (Path(stack.layers[2]) / "d" / "bottom").write_text("changed")
    assert read(daemon.path("moved", "bottom")) == b"changed"
    assert counts(daemon).control["upcalls"]["lookup"] > 0


@pytest.mark.parametrize("path", ["auto", "pool"])
def test_an_immutable_union_is_asked_for_each_thing_once(
    union: LayersMounted, stack: Stack, path: str
) -> None:
    daemon = union(stack, "--immutable", "--path", path)
    first = dump(daemon.mountpoint, ("missing",))
    assert dump(daemon.mountpoint, ("missing",)) == first
    assert counts(daemon).control["upcalls"].keys() <= {"init", "forget"}
    assert counts(daemon).request("OPENDIR") <= 1


@requires("root", "private mounts")
@pytest.mark.parametrize("lease", LEASES)
def test_a_mount_inside_a_layer_is_shown_as_a_directory_of_it(
    union: LayersMounted, stack: Stack, lease: str
) -> None:
    inside = Path(stack.layers[1]) / "d" / "inside"
    for layer in stack.layers[1:]:
        (Path(layer) / "d" / "inside").mkdir()
    (Path(stack.layers[2]) / "d" / "inside" / "below").touch()
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", str(inside)):
        (inside / "mounted").touch()
        daemon = union(stack, lease)
        found = dump(daemon.mountpoint, ())
        daemon.unmount()
    assert found[b"d/inside"]["names"] == [b"below", b"mounted"]


@requires("root")
@pytest.mark.parametrize("lease", LEASES)
def test_the_mount_itself_inside_a_layer_is_never_asked(
    union: LayersMounted, stack: Stack, lease: str
) -> None:
    inside = Path(stack.layers[1]) / "d" / "loop"
    inside.mkdir()
    daemon = union(stack, lease)
    with kernel_mount("--bind", daemon.mountpoint, str(inside)):
        found = dump(daemon.mountpoint, ("loop",))
    assert found[b"d/loop"] == "ELOOP"
    assert b"loop" not in found[b"d"]["names"]


def test_a_hundred_layers_are_mounted_and_named_by_the_first(
    union: LayersMounted, tmp_path: Path
) -> None:
    layers = [tmp_path / f"layer{number}" for number in range(100)]
    for number, layer in enumerate(layers):
        (layer / "d").mkdir(parents=True)
        (layer / "d" / f"f{number}").touch()
    daemon = union(Stack(tuple(map(str, layers))))
    assert len(dump(daemon.mountpoint, ())[b"d"]["names"]) == 100
    assert daemon.mount is not None
    assert daemon.mount.source == f"{layers[0]}:(99 more layers)"


@requires("ordinary user")
def test_an_ordinary_user_mounts_layers_and_no_hole_is_taken_for_bytes(
    ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    top, bottom, mountpoint = (ordinary_user.directory(name) for name in ("top", "bottom", "mnt"))
    script = (
        'echo b > "$1/b"; echo x > "$1/x"; echo t > "$0/t"; : > "$0/.wh.x"; truncate -s 9 "$0/h"'
    )
    assert ordinary_user.run("sh", "-c", script, top, bottom).returncode == 0
    options = ("--layer", top, "--layer", bottom)
    daemon = Daemon("", mountpoint, *options, log=str(tmp_path / "log"), user=ordinary_user)
    try:
        listed = daemon.run("ls", mountpoint).stdout.split()
        hole = daemon.run("cat", f"{mountpoint}/h", check=False)
    finally:
        daemon.unmount()
    assert listed == [b"b", b"h", b"t"]
    assert (hole.returncode, hole.stdout) == (1, b"")
    assert b"Input/output error" in hole.stderr


def test_a_union_is_named_after_its_layers(union: LayersMounted, stack: Stack) -> None:
    daemon = union(stack)
    assert daemon.mount is not None
    assert daemon.mount.source == ":".join(stack.layers)
