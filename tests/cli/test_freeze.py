"""`zcfuse freeze`, `zcfuse check`, and `zcfuse mount` of an image by FUSE."""

import json
import os
import tarfile

import pytest

from tests.cli.conftest import refused
from tests.cli.test_mount_archives import make_tar
from tests.frozen.conftest import seen, seen_in
from tests.support import requires
from zcfuse import Archive, Union, load_manifest
from zcfuse.frozen import FrozenTree


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_text("hello\n")
    os.link(root / "d" / "f", root / "linked")
    return root


@pytest.fixture
def image(tmp_path):
    return str(tmp_path / "image.zcf")


@requires("mounting")
def test_a_frozen_directory_is_mounted_from_its_image(tree, image, zcfuse, mounted):
    told = zcfuse("freeze", str(tree), image)
    assert (told.returncode, told.stderr) == (0, "")
    assert "directories             2" in told.stdout
    daemon = mounted(source=image)
    assert daemon.run("cat", daemon.path("d", "f")).stdout == b"hello\n"
    assert daemon.run("stat", "--format=%h", daemon.path("linked")).stdout == b"2\n"
    (described,) = daemon.status()["tree"]["images"].values()
    assert (described["source"], described["files"]) == (str(tree), 1)


@requires("mounting")
def test_copied_files_are_read_from_the_image_which_is_the_owner_s(tree, image, zcfuse, mounted):
    large = os.urandom(100_000)
    (tree / "large").write_bytes(large)
    told = zcfuse("freeze", "--copy-up-to", "100K", str(tree), image)
    assert (told.returncode, told.stderr) == (0, "")
    assert os.stat(image).st_mode & 0o777 == 0o600
    daemon = mounted(source=image)
    (tree / "d" / "f").unlink()
    (tree / "large").unlink()
    assert daemon.run("cat", daemon.path("linked")).stdout == b"hello\n"
    assert daemon.run("cat", daemon.path("large")).stdout == large


@requires("mounting")
def test_members_of_a_frozen_archive_are_read_from_the_archive(tmp_path, image, zcfuse, mounted):
    archive = make_tar(tmp_path / "a.tar")
    assert zcfuse("freeze", "--keep-index=no", archive, image).returncode == 0
    assert os.path.getsize(image) < 10_000
    daemon = mounted(source=image)
    assert len(daemon.run("cat", daemon.path("d", "data")).stdout) == 1_280_000


def test_check_exits_with_1_for_a_file_that_has_changed(tree, image, zcfuse):
    assert zcfuse("freeze", "--verify", str(tree), image).returncode == 0
    assert zcfuse("check", image).stdout == "1 files compared by mtime: none changed\n"
    (tree / "d" / "f").write_text("changed\n")
    found = zcfuse("check", "--json", image)
    assert found.returncode == 1
    (changed,) = json.loads(found.stdout)["changed"]
    assert changed[1] == "8 bytes, and 6 when it was frozen"


def test_a_tree_of_a_module_is_frozen_and_its_computed_files_are_not(tmp_path, image, zcfuse):
    (tmp_path / "of_a_test.py").write_text(
        "from zcfuse import Bytes, Computed, Dir, File\n"
        "made = Computed(3, lambda offset, size: None)\n"
        "def tree():\n"
        "    return Dir({'kept': Bytes(b'k'), 'made': made, 'gone': File('/missing')})\n"
    )
    path = {"PYTHONPATH": f"{os.getcwd()}:{tmp_path}"}
    told = zcfuse("freeze", "of_a_test:tree", image, env=path)
    refused(told, 1, "2 entries cannot be frozen, the first is 'made'", "--leave-out")
    assert not os.path.exists(image)
    told = zcfuse("freeze", "--leave-out", "of_a_test:tree", image, env=path)
    assert told.returncode == 0
    assert "left out: 1 such as 'made'" in told.stderr
    assert "left out: 1 such as 'gone': it cannot be read: No such file" in told.stderr
    assert "left out 2 bytes of files 1 B" in " ".join(told.stdout.split())


def test_layers_of_every_kind_are_frozen_as_one(tmp_path, tree, image, zcfuse):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "of the archive").write_text("archive")
    (tmp_path / "d" / "hidden").write_text("hidden")
    archive, manifest = str(tmp_path / "a.tar"), tmp_path / "m.jsonl"
    with tarfile.open(archive, "w") as file:
        file.add(tmp_path / "d", "d")
    manifest.write_text(
        '{"path": "d/.wh.hidden", "text": ""}\n{"path": "d/of the manifest", "text": "manifest"}\n'
    )
    below = str(tmp_path / "below.zcf")
    assert zcfuse("freeze", str(tree), below).returncode == 0
    layers = [f"--layer={layer}" for layer in (manifest, archive, below, tmp_path / "d")]
    told = zcfuse("freeze", *layers, image)
    assert (told.returncode, told.stderr) == (0, "")
    shown = Union([load_manifest(manifest), Archive(archive), FrozenTree(below), tmp_path / "d"])
    assert seen_in(image) == seen(shown)
    assert b"d/of the manifest" in seen_in(image)
    assert b"d/hidden" not in seen_in(image)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{tree}"], "Missing argument 'IMAGE'"),
        (["--layer", "{tree}", "{tree}", "{image}"], "takes the place of SOURCE"),
        (["no_such_module:tree", "{image}"], "No module named 'no_such_module'"),
        (["{tree}", "{tree}"], "not a regular file"),
        (["{tree}/missing", "{image}"], "does not exist"),
    ],
)
def test_wrong_use_is_one_line_and_no_image(arguments, told, tree, image, zcfuse):
    given = [argument.format(tree=tree, image=image) for argument in arguments]
    refused(zcfuse("freeze", *given), 2, told)
    assert not os.path.exists(image)


@pytest.mark.parametrize("command", ["mount", "check"])
def test_a_damaged_image_is_refused(command, tree, image, zcfuse, mountpoint):
    zcfuse("freeze", str(tree), image)
    with open(image, "r+b") as file:
        file.seek(3000)
        file.write(b"?")
    more = [mountpoint] if command == "mount" else []
    refused(zcfuse(command, image, *more), 1, "its SHA-256 differs")
