"""Archives whose members the data path answers for (docs/archives.md, "Who answers")."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.counts import counts
from tests.integration.program import Program
from tests.layers.conftest import dump
from tests.support import Daemon, let_pass, requires
from tests.tree.archive.support import make_holes, tar

pytestmark = requires("mounting")

NAMES = ("not there", "x" * 256)
LOOKED_UP = {"lookup", "getattr", "readlink", "opendir", "readdir", "open", "read", "release"}
ArchiveMounted = Callable[..., Daemon]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Files, holes, links of both kinds, directories in directories."""
    source = tmp_path / "tree"
    (source / "d" / "e" / "f").mkdir(parents=True)
    for number in range(300):
        (source / "d" / f"{number}").write_bytes(random.Random(number).randbytes(number * 37))
    (source / "d" / "e" / "large").write_bytes(random.Random(0).randbytes(1_000_001))
    make_holes(source / "holes", [0, 2, 30], 40 * 65536 + 100)
    os.link(source / "holes", source / "d" / "linked")
    os.symlink("../holes", source / "d" / "soft")
    os.utime(source / "d" / "7", ns=(-1_500_000_001, -1_500_000_001))
    tar(tmp_path / "a.tar", source, "--sparse", "--format=pax")
    return tmp_path / "a.tar"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[ArchiveMounted]:
    """Mounts an archive: ``mounted(archive, "--immutable")``; unmounted at the end."""
    with contextlib.ExitStack() as stack:

        def mount(archive: Path, *options: str) -> Daemon:
            mountpoint = tmp_path / f"mnt-{random.randrange(1 << 30)}"
            mountpoint.mkdir()
            log = f"{mountpoint}.log"
            options = ("--keep-index", "no", *options)
            daemon = Daemon(str(archive), str(mountpoint), *options, log=log)
            stack.callback(daemon.unmount)
            return daemon

        yield mount


def upcalls(daemon: Daemon) -> set[str]:
    return set(counts(daemon).control["upcalls"])


@pytest.mark.parametrize("options", [(), ("--cache-timeout", "0"), ("--immutable",)])
def test_members_are_what_python_shows_and_cost_no_upcall(
    archive: Path, mounted: ArchiveMounted, options: tuple[str, ...]
) -> None:
    expected = dump(mounted(archive, "--no-directory-lease").mountpoint, NAMES)
    daemon = mounted(archive, *options)
    found = dump(daemon.mountpoint, NAMES)
    assert found == expected
    assert len(found) > 300
    assert not upcalls(daemon) & LOOKED_UP
    assert dump(daemon.mountpoint, NAMES) == expected


def test_a_listing_of_any_length_has_every_name_once_with_its_number(
    tmp_path: Path, mounted: ArchiveMounted
) -> None:
    source = tmp_path / "many"
    source.mkdir()
    names = [f"{'long' * 20}-{number}" for number in range(5000)]
    for name in names:
        (source / name).touch()
    tar(tmp_path / "many.tar", source)
    daemon = mounted(tmp_path / "many.tar")
    listed = daemon.run("ls", "-i1U", daemon.mountpoint).stdout.decode().split()
    assert sorted(listed[1::2]) == sorted(names)
    described = daemon.run("find", daemon.mountpoint, "-printf", "%i %f\\n").stdout.decode()
    numbers = {name: ino for ino, name in (line.split() for line in described.splitlines())}
    assert [numbers[name] for name in listed[1::2]] == listed[::2]
    assert not upcalls(daemon) & LOOKED_UP


def test_what_was_looked_up_once_is_asked_for_no_more(
    archive: Path, mounted: ArchiveMounted
) -> None:
    daemon = mounted(archive, "--cache-timeout", "0.1")
    found = dump(daemon.mountpoint, NAMES[:1])  # the kernel keeps no name that is too long

    def asked_again() -> list[str]:
        before = counts(daemon)
        let_pass(0.3)
        assert dump(daemon.mountpoint, NAMES[:1]) == found
        after = counts(daemon)
        requests = ("LOOKUP", "GETATTR", "READDIRPLUS", "READLINK")
        return [one for one in requests if after.request(one) != before.request(one)]

    # A kernel that is short of memory drops some of what it keeps, and asks for that again.
    attempts = [asked_again() for _ in range(3)]
    assert [] in attempts, attempts


def test_an_immutable_archive_is_read_again_without_a_request(
    archive: Path, mounted: ArchiveMounted
) -> None:
    daemon = mounted(archive, "--immutable")
    script = "cat */* */*/large > /dev/null"
    command = ["sh", "-c", f"cd {daemon.mountpoint} && {script}; true"]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    before = counts(daemon).datapath["requests"]
    subprocess.run(command, check=True, timeout=30, capture_output=True)
    after = counts(daemon).datapath["requests"]
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert not {name for name, number in grown.items() if number} - {"STATFS", "FORGET", "ACCESS"}


def test_members_of_an_archive_that_changes_are_stale_and_its_names_stay(
    archive: Path, mounted: ArchiveMounted
) -> None:
    daemon = mounted(archive)
    assert daemon.run("cat", f"{daemon.mountpoint}/d/9").stdout == random.Random(9).randbytes(333)
    with open(archive, "r+b") as file:
        file.write(b"other")
    read = daemon.run("cat", f"{daemon.mountpoint}/d/9", check=False)
    assert (read.returncode, read.stdout) == (1, b"")
    assert b"Stale file handle" in read.stderr
    assert b"299\n" in daemon.run("ls", f"{daemon.mountpoint}/d").stdout


@pytest.mark.parametrize("options", [(), ("--immutable",)])
def test_packed_and_damaged_members_are_opened_by_python(
    tmp_path: Path, mounted: ArchiveMounted, options: tuple[str, ...]
) -> None:
    data = random.Random(1).randbytes(500_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("damaged", random.Random(2).randbytes(700_000), zipfile.ZIP_DEFLATED)
        made.writestr("packed", data, zipfile.ZIP_DEFLATED)
        made.writestr("stored", data)
    with open(tmp_path / "a.zip", "r+b") as file:
        file.seek(300_000)
        file.write(b"damage")
    daemon = mounted(tmp_path / "a.zip", *options)
    found = dump(daemon.mountpoint, NAMES)
    assert found[b"packed"]["bytes"] == found[b"stored"]["bytes"]
    assert found[b"damaged"] == "EIO"
    expected = dump(mounted(tmp_path / "a.zip", "--no-directory-lease").mountpoint, NAMES)
    assert found == expected
    assert not upcalls(daemon) & {"lookup", "getattr", "readdir"}


GRAFTED = """
from zcfuse.tree.archive import Archive, Keep
class Own(Archive):
    def lookup(self, directory, name):
        if name == b"d":
            raise FileNotFoundError(2, "hidden")
        return super().lookup(directory, name)
archive = Archive({path!r}, keep=Keep.NOT, uid=7, gid=8)
tree = Dir({{"plain": archive, "own": Own({path!r}, keep=Keep.NOT), "note": Bytes(b"!")}})
"""


@pytest.fixture
def program(archive: Path, mountpoint: str, tmp_path: Path) -> Iterator[Program]:
    """An archive in a program's directory, and one with a policy."""
    source = GRAFTED.format(path=str(archive))
    program = Program(source, mountpoint, str(tmp_path / "log"))
    yield program
    program.end()


def client(*command: str) -> Any:
    return subprocess.run(command, capture_output=True, timeout=30, check=False)


def test_an_archive_in_a_directory_is_answered_for_from_its_root_on(program: Program) -> None:
    owner = client("stat", "-c", "%u %g %i", program.path("plain", "d", "9"))
    assert owner.stdout.startswith(b"7 8 ")
    assert client("cat", program.path("plain", "d", "9")).stdout == random.Random(9).randbytes(333)
    asked = program.statistics()["control"]["upcalls"]
    assert asked["lookup"] == 1
    assert "open" not in asked


def test_an_archive_with_a_policy_is_asked_for_every_name(program: Program) -> None:
    assert client("stat", program.path("own", "d")).returncode == 1
    assert client("stat", program.path("own", "holes")).returncode == 0
    assert program.statistics()["control"]["upcalls"]["lookup"] == 3


def test_a_removed_archive_is_gone_and_its_open_files_stay(program: Program) -> None:
    with open(program.path("plain", "d", "e", "large"), "rb", buffering=0) as file:
        program.run("tree.remove('plain'); await served.notified()")
        assert client("stat", program.path("plain", "d")).returncode == 1
        assert (
            os.pread(file.fileno(), 100, 900_000)
            == random.Random(0).randbytes(1_000_001)[900_000:900_100]
        )
    program.run("tree.add('plain', archive); await served.notified()")
    assert client("cat", program.path("plain", "d", "9")).stdout == random.Random(9).randbytes(333)


def test_after_a_revoke_python_answers_and_says_the_same(program: Program) -> None:
    with open(program.path("plain", "holes"), "rb", buffering=0) as file:
        before = dump(program.path("plain"), NAMES)
        program.run("served.revoke_lease()")
        assert dump(program.path("plain"), NAMES) == before
        assert os.pread(file.fileno(), 10, 0)
    asked = program.statistics()["control"]["upcalls"]
    assert asked["opendir"] > 3
    assert asked["open"] > 300
