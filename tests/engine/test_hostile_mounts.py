"""Images of changed bytes, mounted by FUSE: errors, no crash, and no byte of another file."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import run_zcfuse
from tests.frozen.test_hostile_images import SECRET, image, signed
from tests.support import requires

__all__ = ["image"]

pytestmark = requires("root", "mounting", "xattr")

IMAGES = 60
_SHOW = """
import os
from zcfuse import Dir
from zcfuse.frozen import FrozenTree, ImageError

def opened():
    for name in sorted(os.listdir({directory!r})):
        try:
            yield name, FrozenTree(os.path.join({directory!r}, name))
        except (ImageError, OSError):
            pass

tree = Dir(dict(opened()))
"""
# Looks at up to 300 nodes of each image, and prints how many, and what it read.
_LOOK = """
import os, sys

def each(path):
    left, seen = [path], 0
    while left and seen < 300:
        at = left.pop()
        seen += 1
        for look in (os.lstat, os.listxattr, os.readlink):
            try:
                look(at)
            except OSError:
                pass
        try:
            with os.scandir(at) as entries:
                left += [entry.path for entry in entries][:100]
        except OSError:
            pass
        try:
            fd = os.open(at, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                found.append(os.read(fd, 1000))
            finally:
                os.close(fd)
        except OSError:
            pass
    return seen

found = []
seen = sum(each(os.path.join(sys.argv[1], name)) for name in os.listdir(sys.argv[1]))
print(seen, SECRET in b"".join(found))
"""


def hostile(image: str, path: Path, number: int) -> None:
    """Copy an image and change some of its bytes, more of them where its inodes are."""
    rng = random.Random(number)
    shutil.copy(image, path)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 3, 30, 300))):
        end = len(data) if rng.random() < 0.3 else min(len(data), 1 << 14)
        data[rng.randrange(1024, end)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    path.write_bytes(data)
    signed(str(path))


def test_changed_images_below_one_mount_neither_end_it_nor_show_another_file(
    image: str, tmp_path: Path, mountpoint: str
) -> None:
    directory = tmp_path / "images"
    directory.mkdir()
    for number in range(IMAGES):
        hostile(image, directory / f"{number:02}", number)
    shutil.copy(image, directory / "unchanged")
    program = tmp_path / "show.py"
    program.write_text(_SHOW.format(directory=str(directory)))
    assert run_zcfuse("mount", f"{program}:tree", mountpoint).returncode == 0
    try:
        command = [sys.executable, "-c", f"SECRET = {SECRET!r}\n{_LOOK}", mountpoint]
        told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert told.returncode == 0, told.stderr
        seen, shown = told.stdout.split()
        assert int(seen) > 300
        assert shown == "False"
        status = json.loads(run_zcfuse("status", "--json", mountpoint).stdout)
        assert len(status["tree"]["images"]) > 10
        assert os.path.exists(os.path.join(mountpoint, "unchanged", "s"))
    finally:
        ended = run_zcfuse("umount", "--force", mountpoint)
    assert ended.returncode == 0, ended.stderr
