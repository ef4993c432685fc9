"""Files that fs-verity vouches for: the kernel opens no other file in the place of one."""

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import requires
from zcfuse.frozen import FrozenTree
from zcfuse.tree import Mirror

pytestmark = requires("root", "erofs", "xattr")

ENABLE = 0x40806685  # FS_IOC_ENABLE_VERITY
# struct fsverity_enable_arg: version, algorithm (SHA-256), size of a block; no salt, no signature
ENABLE_ARGUMENT = struct.pack("IIII112x", 1, 1, 4096, 0)


def open_error(path: Path) -> int:
    """The errno of an open for reading, 0 without an error."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return 0


def test_a_file_without_the_digest_that_the_image_has_is_refused(
    tmp_path, frozen, by_kernel, monkeypatch
):
    # A filesystem that had fs-verity when the tree was frozen, and has it no more.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("vouched", "plain"):
        (source / name).write_text(name)
    digest = hashlib.sha256(b"anything").digest()

    def verity_of(fd: int) -> tuple[int, bytes] | None:
        return (1, digest) if os.readlink(f"/proc/self/fd/{fd}").endswith("vouched") else None

    monkeypatch.setattr("zcfuse.frozen._walk.verity_of", verity_of)
    image, summary = frozen(Mirror(source), verify=True, digest=True)
    assert summary.about.verity == 1
    place = Path(by_kernel(image))
    assert open_error(place / "vouched") == errno.EIO
    assert (place / "plain").read_text() == "plain"
    shown = FrozenTree(image)
    assert shown.open(shown.lookup(shown.root, b"vouched")[0]).pread(9, 0) == b"vouched"
    shown.close()


def test_a_filesystem_without_fs_verity_gives_the_image_no_digest(tmp_path, frozen, by_kernel):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("bytes")
    image, summary = frozen(Mirror(source), verify=True, digest=True)
    assert summary.about.verity == 0
    assert (Path(by_kernel(image)) / "file").read_text() == "bytes"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty filesystem that has fs-verity."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 << 20)
    with contextlib.ExitStack() as ends:
        for command in (
            ["mkfs.ext4", "-q", "-b", "4096", "-O", "verity", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ):
            subprocess.run(command, timeout=60, check=True)
        ends.callback(subprocess.run, ["umount", str(place)], timeout=60, check=True)
        yield place


@requires("loop", "fs-verity")
def test_another_file_with_the_same_size_and_time_is_refused(disk, frozen, by_kernel):
    for name in ("same", "replaced"):
        path = disk / name
        path.write_text("before")
        with open(path, "rb") as file:
            fcntl.ioctl(file.fileno(), ENABLE, ENABLE_ARGUMENT)
    image, summary = frozen(Mirror(disk), verify=True, digest=True)
    assert summary.about.verity == 2
    status = (disk / "replaced").stat()
    (disk / "other").write_text("change")
    os.utime(disk / "other", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(disk / "other", disk / "replaced")
    place = Path(by_kernel(image))
    assert (place / "same").read_text() == "before"
    assert open_error(place / "replaced") == errno.EIO
