"""Choosing the engine: the kernel where it can, FUSE with the reason, and the commands on both."""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.cli.conftest import zcfuse as zcfuse
from tests.engine.conftest import seen_at
from tests.support import requires
from tests.support._user import CHECKOUT

pytestmark = requires("root", "erofs", "mounting")


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("hello\n")
    return root


@pytest.fixture
def image(tree, tmp_path):
    path = str(tmp_path / "image.zcf")
    assert run_zcfuse("freeze", str(tree), path).returncode == 0
    return path


def row(zcfuse, mountpoint):
    rows = json.loads(zcfuse("list", "--json").stdout)
    return next((row for row in rows if row["mountpoint"] == mountpoint), None)


def test_an_image_is_mounted_without_a_daemon_and_known_to_the_commands(image, zcfuse, place):
    told = zcfuse("mount", image, place)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    with open(os.path.join(place, "d", "f")) as file:
        assert file.read() == "hello\n"
    found = row(zcfuse, place)
    assert (found["source"], found["pid"], found["path"]) == (image, None, "kernel")
    status = json.loads(zcfuse("status", "--json", place).stdout)
    assert (status["engine"], status["kind"]) == ("kernel", "image")
    assert status["engine_reason"] == "a frozen tree needs no FUSE"
    explained = zcfuse("explain", os.path.join(place, "d", "f")).stdout
    assert "which redirects to /d/f" in explained
    assert zcfuse("umount", place).returncode == 0
    assert not os.path.ismount(place)
    assert row(zcfuse, place) is None


def test_an_image_of_somebody_else_is_served_by_fuse_which_says_why(image, zcfuse, place):
    os.chown(image, 65534, 65534)
    refused(zcfuse("mount", "--engine", "kernel", image, place), 1, "by others than root")
    assert not os.path.ismount(place)
    assert zcfuse("mount", image, place).returncode == 0
    (told,) = json.loads(zcfuse("status", "--json", place).stdout)["tree"]["images"].values()
    assert "by others than root" in told["engine_reason"]
    assert "by others than root" in zcfuse("status", place).stdout
    assert zcfuse("umount", place).returncode == 0


def test_what_only_fuse_has_keeps_auto_with_fuse(image, zcfuse, place):
    assert zcfuse("mount", "--path", "splice", image, place).returncode == 0
    (told,) = json.loads(zcfuse("status", "--json", place).stdout)["tree"]["images"].values()
    assert told["engine_reason"] == "only FUSE gives --path"
    assert zcfuse("umount", place).returncode == 0
    both = ("--engine", "kernel", "--path", "splice")
    refused(zcfuse("mount", *both, image, place), 1, "only FUSE gives --path")


def test_a_shard_that_has_changed_is_refused_by_the_kernel(tmp_path, zcfuse, place):
    image, shard = str(tmp_path / "i.zcf"), tmp_path / "shard"
    shard.write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "of_shards.py").write_text(
        f"from zcfuse import Dir, Slice\ntree = Dir({{'s': Slice({str(shard)!r}, 512, 99999)}})\n"
    )
    path = {"PYTHONPATH": f"{os.getcwd()}:{tmp_path}"}
    assert zcfuse("freeze", "of_shards:tree", image, env=path).returncode == 0
    assert zcfuse("mount", "--engine", "kernel", image, place).returncode == 0
    assert zcfuse("umount", place).returncode == 0
    os.utime(shard)
    refused(zcfuse("mount", "--engine", "kernel", image, place), 1, "has changed since")


def test_an_image_on_tmpfs_is_mounted_by_a_loop_device_that_goes_with_it(image, zcfuse, place):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        moved = shutil.copy(image, directory)
        assert zcfuse("mount", "--engine", "kernel", moved, place).returncode == 0
        assert os.listdir(place) == ["d"]
        listed = ["losetup", "--associated", moved]
        assert moved in subprocess.run(listed, capture_output=True, text=True, timeout=20).stdout
        assert zcfuse("umount", place).returncode == 0
        assert subprocess.run(listed, capture_output=True, text=True, timeout=20).stdout == ""


def test_a_busy_mount_stays_unless_it_is_to_be_detached(image, zcfuse, place):
    assert zcfuse("mount", image, place).returncode == 0
    with open(os.path.join(place, "d", "f")) as file:
        refused(zcfuse("umount", "--wait", "0", place), 1, "busy", "still mounted")
        told = zcfuse("umount", "--wait", "0", "--force", place)
        assert (told.returncode, file.read()) == (0, "hello\n")
    assert "keep it until they end" in told.stderr
    assert not os.path.ismount(place)


def test_mount_8_mounts_an_image_by_the_kernel(image, zcfuse, place):
    program = "import sys; from zcfuse.cli.mount.helper import main; main(sys.argv[1:])"
    options = ["-o", "ro,noexec,engine=kernel"]
    helper = [sys.executable, "-c", program, image, place, *options]
    subprocess.run(helper, timeout=60, check=True, cwd=CHECKOUT)
    assert row(zcfuse, place)["path"] == "kernel"
    with open("/proc/self/mountinfo") as file:
        (line,) = [line for line in file if line.split(" ")[4] == place]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split(" ")[5].split(","))
    subprocess.run(["umount", place], check=True, timeout=20)
    assert row(zcfuse, place) is None


def test_the_kernel_mounts_a_directory_read_only(tree, zcfuse, place):
    assert zcfuse("mount", "--engine", "kernel", str(tree), place).returncode == 0
    assert seen_at(place) == seen_at(str(tree))
    with pytest.raises(OSError, match="Read-only"):
        os.unlink(os.path.join(place, "d", "f"))
    assert row(zcfuse, place)["source"] == str(tree)
    assert zcfuse("umount", place).returncode == 0
    assert os.path.exists(tree / "d" / "f")


def test_the_kernel_merges_layers_as_fuse_does(tmp_path, zcfuse, mounted, place):
    for name in ("top", "bottom"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / name).write_text(name)
        (tmp_path / name / "both").write_text(name)
    os.mknod(tmp_path / "top" / "hidden", 0o20000, 0)
    (tmp_path / "bottom" / "hidden").write_text("")
    layers = [f"--layer={tmp_path / name}" for name in ("top", "bottom")]
    assert zcfuse("mount", "--engine", "kernel", *layers, place).returncode == 0
    by_kernel = seen_at(place)
    assert row(zcfuse, place)["path"] == "kernel"
    assert zcfuse("umount", place).returncode == 0
    daemon = mounted(*layers, source="", mountpoint=place)
    script = os.path.join(os.path.dirname(__file__), "..", "layers", "dump.py")
    by_fuse = ast.literal_eval(daemon.run(sys.executable, script, place, "missing").stdout.decode())
    assert by_fuse.keys() == by_kernel.keys()
    for path, told in by_kernel.items():
        if isinstance(told, dict):
            same = ("mode", "owner", "size", "bytes", "names", "types")
            assert {name: told.get(name) for name in same} == {
                name: by_fuse[path].get(name) for name in same
            }


def test_a_tree_that_the_kernel_cannot_show_is_to_be_frozen_first(tmp_path, zcfuse, place):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"path": "a", "text": "x"}\n')
    told = zcfuse("mount", "--engine", "kernel", "--tree", str(manifest), place)
    refused(told, 2, "use 'zcfuse freeze' first")
