"""Mounted archives: clients see what tar and unzip extract.

docs/archives.md.
"""

from __future__ import annotations

import ast
import os
import random
import stat
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import ALL_PATHS
from tests.integration.program import Program
from tests.support import requires
from tests.support._user import CHECKOUT
from tests.tree.archive.support import extracted, make_holes, tar

pytestmark = requires("mounting")

CLIENT_SECONDS = 60

SEEN = """
import sys
from tests.tree.archive.support import held
seen, links = held(sys.argv[1])
print(({path: tuple(found) for path, found in seen.items()}, links))
"""

PACKED = """
import errno, os, sys, threading, zlib
os.chdir(sys.argv[1])
sums = []
def read():
    with open("packed", "rb") as file:
        sums.append(zlib.crc32(file.read()))
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
try:
    open("damaged", "rb").read()
except OSError as error:
    sums.append(errno.errorcode[error.errno])
print((sums, sorted(os.listdir("."))))
"""


def seen_by(client: str, archive: Path, mountpoint: Path, path: str) -> Any:
    """Mount the archive, run the client and return its output."""
    mountpoint.mkdir(exist_ok=True)
    program = Program(
        f"""
from zcfuse.tree.archive import Archive, Keep
tree = Archive({str(archive)!r}, keep=Keep.NOT)
options = MountOptions(path={path!r}, unmount_wait=1)
""",
        str(mountpoint),
        f"{archive}.log",
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", client, str(mountpoint)],
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": CHECKOUT},
        )
    finally:
        program.end()
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "tree"
    (source / "many").mkdir(parents=True)
    for number in range(100):
        (source / "many" / f"{number}").write_bytes(random.Random(number).randbytes(number * 111))
    (source / "large").write_bytes(random.Random(0).randbytes(3_000_001))
    make_holes(source / "holes", [0, 2, 30], 40 * 65536 + 100)
    os.link(source / "holes", source / "many" / "linked")
    os.symlink("../large", source / "many" / "soft")
    (source / "large").chmod(0o640)
    return source


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_mounted_tar_is_what_gnu_tar_unpacks(tmp_path: Path, source: Path, path: Any) -> None:
    tar(tmp_path / "a.tar", source, "--sparse", "--format=pax")
    seen, links = seen_by(SEEN, tmp_path / "a.tar", tmp_path / "mnt", path)
    expected, expected_links = extracted(tmp_path / "a.tar", tmp_path / "x")
    assert seen == {name: tuple(found) for name, found in expected.items()}
    assert links == expected_links
    assert stat.S_IMODE(seen[b"large"][0]) == 0o640


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_mounted_compressed_tar_is_what_gnu_tar_unpacks(
    tmp_path: Path, source: Path, path: Any
) -> None:
    tar(tmp_path / "a.tar", source, "--sparse", "--format=pax")
    expected, expected_links = extracted(tmp_path / "a.tar", tmp_path / "x")
    subprocess.run(["gzip", tmp_path / "a.tar"], timeout=20, check=True)
    seen, links = seen_by(SEEN, tmp_path / "a.tar.gz", tmp_path / "mnt", path)
    assert seen == {name: tuple(found) for name, found in expected.items()}
    assert links == expected_links


@pytest.mark.parametrize("program", ["bzip2", "xz", "zstd"])
def test_each_compression_is_mounted_by_its_library(
    tmp_path: Path, source: Path, program: str
) -> None:
    tar(tmp_path / "a.tar", source)
    expected, _ = extracted(tmp_path / "a.tar", tmp_path / "x")
    with open(tmp_path / "a.tar", "rb") as plain, open(tmp_path / "packed", "wb") as packed:
        subprocess.run([program], stdin=plain, stdout=packed, timeout=20, check=True)
    seen, _ = seen_by(SEEN, tmp_path / "packed", tmp_path / "mnt", "auto")
    assert seen == {name: tuple(found) for name, found in expected.items()}


@pytest.mark.parametrize("path", ALL_PATHS)
def test_packed_members_of_a_zip_are_unpacked_on_open(tmp_path: Path, path: Any) -> None:
    data = random.Random(1).randbytes(2_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("damaged", random.Random(2).randbytes(700_000))
        archive.writestr("packed", data)
    with open(tmp_path / "a.zip", "r+b") as file:
        file.seek(300_000)
        file.write(b"damage")
    sums, names = seen_by(PACKED, tmp_path / "a.zip", tmp_path / "mnt", path)
    assert sums == [zlib.crc32(data)] * 4 + ["EIO"]
    assert names == ["damaged", "packed"]


REOPENED = """
import os, sys, threading, zlib
os.chdir(sys.argv[1])
failed = []
def read(name):
    try:
        with open(name, "rb") as file:
            sums.append(zlib.crc32(file.read()))
    except OSError as error:
        failed.append(str(error))
with open("packed", "rb") as held, open("stored", "rb") as held_too:
    sums = [zlib.crc32(held.read()), zlib.crc32(held_too.read())]
    read("packed")
    read("stored")
for _ in range(8):  # opens meet the first open, each other and the last release
    threads = [threading.Thread(target=read, args=("packed",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
print((failed, len(sums), sorted(set(sums))))
"""


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_member_that_is_open_is_opened_again(tmp_path: Path, path: Any) -> None:
    data = random.Random(1).randbytes(300_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("packed", data, zipfile.ZIP_DEFLATED)
        archive.writestr("stored", data[1:], zipfile.ZIP_STORED)
    expected = sorted(map(zlib.crc32, (data, data[1:])))
    failed, count, sums = seen_by(REOPENED, tmp_path / "a.zip", tmp_path / "mnt", path)
    assert (failed, count, sums) == ([], 4 + 8 * 6, expected)


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_member_of_a_compressed_tar_is_opened_by_many_and_unpacked_once(
    tmp_path: Path, path: Any
) -> None:
    data = random.Random(1).randbytes(300_000)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "packed").write_bytes(data)
    (tmp_path / "tree" / "stored").write_bytes(data[1:])
    tar(tmp_path / "a.tar", tmp_path / "tree")
    subprocess.run(["gzip", tmp_path / "a.tar"], timeout=20, check=True)
    client = REOPENED.replace("print((", "print((os.listdir(), ")
    names, failed, count, sums = seen_by(client, tmp_path / "a.tar.gz", tmp_path / "mnt", path)
    assert sorted(names) == ["packed", "stored"]
    assert (failed, count) == ([], 4 + 8 * 6)
    assert sums == sorted(map(zlib.crc32, (data, data[1:])))


@pytest.mark.parametrize("path", ALL_PATHS)
def test_a_mount_may_cover_the_directory_of_its_archive(
    tmp_path: Path, source: Path, path: Any
) -> None:
    covered = tmp_path / "covered"
    covered.mkdir()
    tar(covered / "a.tar", source)
    seen, _ = seen_by(SEEN, covered / "a.tar", covered, path)
    assert seen[b"large"][2] == (source / "large").read_bytes()


def test_archives_stand_in_directories_and_packed_members_pass_through(
    tmp_path: Path, source: Path, mountpoint: str
) -> None:
    tar(tmp_path / "a.tar", source)
    data = random.Random(3).randbytes(1_000_000)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("packed", data)
    (tmp_path / "streamed").write_bytes(data)
    subprocess.run(
        ["tar", "-C", tmp_path, "-czf", tmp_path / "c.tgz", "streamed"], timeout=20, check=True
    )
    program = Program(
        f"""
os.environ["XDG_CACHE_HOME"] = {str(tmp_path / "cache")!r}
tree = Dir({{"shards": Dir({{"a": Archive({str(tmp_path / "a.tar")!r})}}),
             "b": Archive({str(tmp_path / "b.zip")!r}),
             "c": Archive({str(tmp_path / "c.tgz")!r})}})
""",
        mountpoint,
        str(tmp_path / "log"),
    )
    try:
        done = subprocess.run(
            ["cmp", program.path("shards", "a", "large"), source / "large"], timeout=20, check=False
        )
        assert done.returncode == 0
        for packed in (program.path("b", "packed"), program.path("c", "streamed")):
            read = subprocess.run(["cat", packed], capture_output=True, timeout=20, check=True)
            assert read.stdout == data
        up = subprocess.run(
            ["ls", "-ia", program.path("shards", "a")], capture_output=True, timeout=20, check=True
        )
        assert b"large" in up.stdout
        counted = program.statistics()["datapath"]
        splice = counted["paths"]["splice"]
        assert splice["bytes"] > 2_500_000
        assert (splice["copied_in"], splice["copied_out"]) == (0, 0)
        refused = "passthrough_not_permitted" in counted["fallbacks"]
        if counted["init"]["passthrough"] and not refused:
            assert counted["opens"]["passthrough"] == 2
    finally:
        program.end()
