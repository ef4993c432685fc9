"""Choosing the engine: the kernel where it can, FUSE with the reason, and the commands on both."""

import ast
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.cli.conftest import zcfuse as zcfuse
from tests.engine.conftest import seen_at
from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.engine import kernel_mounts

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


def test_other_users_know_a_mount_of_the_kernel(tree, zcfuse, place):
    assert zcfuse("mount", "--engine", "kernel", str(tree), place).returncode == 0
    os.seteuid(65534)
    try:
        known = [served.entry.mountpoint for served in kernel_mounts()]
    finally:
        os.seteuid(0)
    assert place in known


_IN_A_NAMESPACE_WITHOUT_OTHER_MOUNTS = """
set -e
findmnt --list --noheadings --output TARGET --types fuse.zcfuse | tac |
    while read -r other; do umount --lazy "$other"; done
zcfuse() { "$0" -m zcfuse "$@"; }
mkdir "$1/below"
zcfuse mount --engine kernel "$1" "$2"
zcfuse mount docs "$2/below"
zcfuse list
zcfuse umount --all
zcfuse list
"""


def test_all_mounts_include_those_of_the_kernel_last_first(tree, place):
    alone = ["unshare", "--mount", "--propagation", "private", "bash", "-c"]
    script = [*alone, _IN_A_NAMESPACE_WITHOUT_OTHER_MOUNTS, sys.executable, str(tree), place]
    told = subprocess.run(script, cwd=CHECKOUT, timeout=90, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    *rows, last = told.stdout.splitlines()
    assert [place in row for row in rows].count(True) == 2, rows
    assert last == "no zcfuse mounts"


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


def test_the_kernel_lets_clients_change_a_directory_if_asked(tree, zcfuse, place):
    assert zcfuse("mount", "--engine", "kernel", "--rw", str(tree), place).returncode == 0
    with open(os.path.join(place, "d", "new"), "w") as file:
        file.write("new")
    os.unlink(os.path.join(place, "d", "f"))
    assert row(zcfuse, place)["path"] == "kernel"
    assert zcfuse("umount", place).returncode == 0
    assert [(path.name, path.read_text()) for path in (tree / "d").iterdir()] == [("new", "new")]


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        (("--immutable", "--allow-other"), "kernel"),
        (("--immutable",), "fuse"),  # other users must not enter
        (("--immutable", "--allow-other", "--path", "pool"), "fuse"),
        (("--allow-other",), "fuse"),
    ],
)
def test_the_kernel_serves_a_directory_that_does_not_change_if_nothing_needs_fuse(
    tree, zcfuse, place, options, engine
):
    assert zcfuse("mount", *options, str(tree), place).returncode == 0
    status = json.loads(zcfuse("status", "--json", place).stdout)
    assert status.get("engine", "fuse") == engine
    if engine == "kernel":
        assert status["engine_reason"] == "an immutable tree needs no FUSE"
    assert zcfuse("umount", place).returncode == 0


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_that_does_not_change_is_frozen_if_it_is_not_compressed(
    tmp_path, zcfuse, mode, place
):
    (tmp_path / "source" / "d").mkdir(parents=True)
    (tmp_path / "source" / "d" / "large").write_bytes(os.urandom(100_000))
    (tmp_path / "source" / "small").write_text("small")
    archive = str(tmp_path / "archive")
    with tarfile.open(archive, mode) as writer:
        writer.add(tmp_path / "source", "")
    plain = mode == "w"
    options = ("--immutable", "--allow-other", "--keep-index=no")
    told = zcfuse("mount", *options, archive, place)
    assert told.returncode == 0, told.stderr
    shown, packed = seen_at(place), seen_at(str(tmp_path / "source"))
    assert shown.keys() == packed.keys()
    for path in (b"d/large", b"small"):
        assert shown[path]["bytes"] == packed[path]["bytes"]
    assert (row(zcfuse, place)["path"] == "kernel") == plain
    status = json.loads(zcfuse("status", "--json", place).stdout)
    if plain:
        assert (status["source"], status["filesystem"]) == (archive, "erofs")
        explained = zcfuse("explain", os.path.join(place, "small")).stdout
        assert "blocks of the archive" in explained
    else:
        (described,) = status["tree"]["archives"].values()
        assert "tar without compression only" in described["engine_reason"]
    assert zcfuse("umount", place).returncode == 0


@pytest.fixture
def layers(tmp_path):
    """The options of two layers, the upper one first."""
    for name in ("one", "two"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / name).write_text(name)
    return [f"--layer={tmp_path / name}" for name in ("one", "two")]


def test_changes_of_layers_go_to_the_upper_directory_which_fuse_shows_as_well(
    tmp_path, layers, zcfuse, mounted, place
):
    before = seen_at(str(tmp_path / "one")), seen_at(str(tmp_path / "two"))
    upper = tmp_path / "upper"
    upper.mkdir()
    options = ("--engine=kernel", f"--upper={upper}", "--redirect-dir")
    assert zcfuse("mount", *options, *layers, place).returncode == 0
    os.unlink(os.path.join(place, "d", "one"))
    os.rename(os.path.join(place, "d"), os.path.join(place, "moved"))
    with open(os.path.join(place, "moved", "two"), "a") as file:
        file.write(" and more")
    os.chmod(os.path.join(place, "moved", "two"), 0o600)
    by_kernel = seen_at(place)
    assert by_kernel.keys() == {b"", b"moved", b"moved/two", b"missing", b"moved/missing"}
    assert row(zcfuse, place)["path"] == "kernel"
    assert zcfuse("umount", place).returncode == 0
    assert (seen_at(str(tmp_path / "one")), seen_at(str(tmp_path / "two"))) == before
    mounted(f"--layer={upper}", *layers, source="", mountpoint=place)
    script = os.path.join(os.path.dirname(__file__), "..", "layers", "dump.py")
    command = [sys.executable, script, place, "missing"]
    by_fuse = ast.literal_eval(
        subprocess.run(command, capture_output=True, timeout=60).stdout.decode()
    )
    assert by_fuse[b"moved/two"]["bytes"] == by_kernel[b"moved/two"]["bytes"]
    assert by_fuse[b"moved/two"]["mode"] == by_kernel[b"moved/two"]["mode"]
    assert by_fuse.keys() == by_kernel.keys()


@pytest.mark.parametrize(
    ("option", "is_metacopy", "is_moved"),
    [([], False, False), (["--metacopy"], True, True), (["--redirect-dir"], False, True)],
)
def test_overlayfs_makes_the_marks_that_are_asked_for(
    tmp_path, layers, zcfuse, place, option, is_metacopy, is_moved
):
    upper = tmp_path / "upper"
    upper.mkdir()
    command = ("mount", "--engine=kernel", f"--upper={upper}", *option, *layers, place)
    assert zcfuse(*command).returncode == 0
    os.chmod(os.path.join(place, "d", "one"), 0o600)
    copy = upper / "d" / "one"
    assert ("trusted.overlay.metacopy" in os.listxattr(copy)) is is_metacopy
    refused_move = contextlib.nullcontext() if is_moved else pytest.raises(OSError, match="link")
    with refused_move:
        os.rename(os.path.join(place, "d"), os.path.join(place, "moved"))
    assert (upper / "moved").exists() is is_moved
    assert zcfuse("umount", place).returncode == 0


def test_an_upper_directory_is_for_layers(tmp_path, tree, layers, zcfuse, place):
    upper = f"--upper={tmp_path}"
    refused(zcfuse("mount", upper, str(tree), place), 2, "and --redirect-dir are for --layer")
    refused(zcfuse("mount", upper, *layers, place), 2, "overlaps with the layer")
    (tmp_path / "upper").mkdir()
    only = ("--engine=kernel", "--path", "splice", f"--upper={tmp_path / 'upper'}")
    refused(zcfuse("mount", *only, *layers, place), 1, "only FUSE gives --path")
    assert not os.path.ismount(place)


def test_a_tree_that_the_kernel_cannot_show_is_to_be_frozen_first(tmp_path, zcfuse, place):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"path": "a", "text": "x"}\n')
    told = zcfuse("mount", "--engine", "kernel", "--tree", str(manifest), place)
    refused(told, 2, "use 'zcfuse freeze' first")
