"""The data path answers for an image by itself, as Python does."""

import errno
import json
import os
import subprocess
import sys

import pytest

from tests.cli.conftest import run_zcfuse
from tests.cli.conftest import zcfuse as zcfuse
from tests.engine.conftest import seen_at
from tests.frozen.conftest import hard_tree, seen_in
from tests.support import requires
from zcfuse.tree import Bytes, Concat, Dir, Mirror, Slice, VirtualTree, Zeros

pytestmark = requires("root", "mounting", "xattr")


@pytest.fixture
def image(tmp_path, frozen):
    """An image with files of every kind of place, some of which only FUSE can serve."""
    root = os.fsencode(tmp_path / "hard")
    os.mkdir(root)
    hard_tree(root)
    os.truncate(os.path.join(root, b"huge"), 100)  # the dump reads it
    shard = tmp_path / "shard"
    shard.write_bytes(bytes(range(256)) * 1000)
    entries = {
        "hard": Mirror(root),
        "aligned": Slice(str(shard), 512, 100_000),
        "anywhere": Slice(str(shard), 3, 70_000),
        "joined": Concat([Slice(str(shard), 1, 66_000), Zeros(5_000), Slice(str(shard), 7, 9)]),
        "bytes": Bytes(b"in the image"),
        "many": Dir({f"{number:04}": Bytes(b"%d" % number) for number in range(2000)}),
    }
    return frozen(VirtualTree(Dir(entries)), roots=[root])[0]


def upcalls(place):
    """The requests that Python answered at a mount."""
    status = json.loads(run_zcfuse("status", "--json", place).stdout)
    return status["datapath"]["upcalls"]


def outcome(path):
    """What reading a file gives another process: its size, or the errno."""
    code = (
        "import sys\n"
        "try: print(len(open(sys.argv[1], 'rb').read()))\n"
        "except OSError as error: print(-error.errno)\n"
    )
    told = subprocess.run([sys.executable, "-c", code, path], capture_output=True, timeout=30)
    return int(told.stdout)


def test_the_data_path_shows_an_image_as_python_does_without_an_upcall(image, zcfuse, place):
    assert zcfuse("mount", "--engine", "fuse", image, place).returncode == 0
    before = upcalls(place)
    found = seen_at(place)
    assert upcalls(place) == before
    assert len(found) > 2000
    assert found == seen_in(image)
    assert zcfuse("umount", place).returncode == 0


def test_python_alone_shows_an_image_as_the_data_path_does(image, zcfuse, place):
    assert zcfuse("mount", "--engine", "fuse", "--path", "naive", image, place).returncode == 0
    assert seen_at(place) == seen_in(image)
    assert zcfuse("umount", place).returncode == 0


def test_a_changed_backing_file_is_stale_and_a_lost_one_an_error(image, tmp_path, zcfuse, place):
    (tmp_path / "hard" / "~").write_bytes(b"another size")
    os.utime(tmp_path / "shard", ns=(0, 0))
    os.remove(tmp_path / "hard" / "huge")
    assert zcfuse("mount", "--engine", "fuse", image, place).returncode == 0
    assert outcome(os.path.join(place, "hard", "~")) == -errno.ESTALE
    assert outcome(os.path.join(place, "aligned")) == -errno.ESTALE
    assert outcome(os.path.join(place, "hard", "huge")) == -errno.EIO
    assert outcome(os.path.join(place, "bytes")) == len(b"in the image")
    assert zcfuse("umount", place).returncode == 0
