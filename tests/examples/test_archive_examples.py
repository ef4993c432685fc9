"""The examples that read archives do what their first paragraphs say."""

import io
import os
import signal
import subprocess
import sys
import tarfile

from tests.examples.conftest import DEADLINE_S, Programs
from tests.support import find_mount

SHARDS = 3
SAMPLES = 40


def write_shard(path: str, first: int) -> int:
    """Write a shard and return the bytes of its members."""
    size = 0
    with tarfile.open(path, "w") as archive:
        for number in range(first, first + SAMPLES):
            for name, data in (
                (f"{number:06}.jpg", os.urandom(number * 100)),
                (f"{number:06}.cls", b"%d" % (number % 10)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                size += len(data)
    return size


def test_a_training_loop_reads_tar_shards_through_the_mount(
    programs: Programs, source: str, mountpoint: str
) -> None:
    paths = [os.path.join(source, f"train-{number:04}.tar") for number in range(SHARDS)]
    size = sum(write_shard(path, number * SAMPLES) for number, path in enumerate(paths))
    process = programs.start("tar_shards.py", mountpoint, *paths)
    programs.wait_until_mounted(process)
    loop = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "training_loop.py")
    done = subprocess.run(
        [sys.executable, loop, mountpoint],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout == f"{SHARDS * SAMPLES} samples of 10 classes, {size} bytes\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    assert find_mount(mountpoint) is None


def test_a_shard_that_is_no_archive_is_one_line(programs: Programs, source: str) -> None:
    path = os.path.join(source, "shard.tar")
    with open(path, "wb") as file:
        file.write(b"no archive")
    process = programs.start("tar_shards.py", source, path)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (1, f"{path}: neither a tar nor a zip archive\n")
