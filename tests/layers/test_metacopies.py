"""Changes of attributes that copy no bytes up: ``--metacopy`` beside overlayfs's metacopy=on."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH
from tests.layers import writable
from tests.support import OrdinaryUser, requires, skip_unless

pytestmark = requires("mounting", "root", "overlay layers")

MARK = "trusted.overlay.metacopy"
KERNEL = ",metacopy=on"
DATA = b"bytes of a layer\n" * 60_000
ATTRIBUTES = (
    "os.chmod(p('file'), 0o4751)",
    "os.chown(p('file'), 7, 8)",
    "os.utime(p('file'), ns=(1_000_000_001, 2_000_000_002))",
    "os.setxattr(p('file'), 'user.note', b'value')",
)
SEEN = (
    "[getattr(os.stat(p('file')), name) for name in"
    " ('st_mode', 'st_uid', 'st_gid', 'st_size', 'st_mtime_ns', 'st_blocks')]"
)


LAYERS = ["top", "bottom"]


def make_layers(above: Path) -> None:
    writable.write(above / "top" / "other", b"other")
    writable.write(above / "bottom" / "file", DATA)
    writable.write(above / "bottom" / "dir" / "file", DATA)


@pytest.fixture(params=["pool", PASSTHROUGH])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Our union and the kernel's overlayfs of the same two layers."""
    skip_unless("mounting", "root", "overlay layers")
    make_layers(tmp_path)
    options = ("--metacopy", "--path", request.param)
    with writable.both(tmp_path, LAYERS, *options, kernel=KERNEL) as pair:
        yield pair


def upper(pair: Pair, name: str, whose: str = "ours") -> Path:
    return Path(os.fsdecode(pair.mount.value("p('')"))).parent / whose / name


def is_metacopy(path: Path) -> bool:
    return MARK in os.listxattr(path)


def zcfuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zcfuse", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("change", ATTRIBUTES)
def test_a_change_of_attributes_copies_no_bytes(pair: Pair, change: str) -> None:
    pair.same(change)
    pair.same(SEEN)
    assert pair.same("open(p('file'), 'rb').read()") == DATA
    for whose in ("ours", "theirs"):
        copy = upper(pair, "file", whose)
        assert os.getxattr(copy, MARK) == b""
        assert (copy.stat().st_size, copy.stat().st_blocks < 16) == (len(DATA), True)


@pytest.mark.parametrize(
    "change",
    [
        "f = open(p('file'), 'r+b'); f.write(b'BYTES'); f.close()",
        "os.truncate(p('file'), 5)",
        "open(p('file'), 'wb').close()",
        "os.rename(p('file'), p('dir/moved')); os.rename(p('dir/moved'), p('file'))",
        "os.link(p('file'), p('linked'))",
    ],
)
def test_the_bytes_follow_with_the_first_change_of_them(pair: Pair, change: str) -> None:
    pair.same("reader = os.open(p('file'), os.O_RDONLY)")
    for attributes in ATTRIBUTES:
        pair.same(attributes)
    number = pair.mount.value("os.stat(p('file')).st_ino")
    pair.same(change)
    pair.same("open(p('file'), 'rb').read()")
    pair.same("os.fchmod(reader, 0o640)")
    assert pair.same("oct(os.fstat(reader).st_mode)") == "0o100640"
    assert oct(upper(pair, "file").stat().st_mode) == "0o100640"
    # The old file shows the size of the copy, and without passthrough no bytes beyond that.
    read = pair.mount.value("os.pread(reader, 1 << 21, 0)")
    assert read == (DATA[: len(read)] if "truncate" in change or "'wb'" in change else DATA)
    assert pair.mount.value("os.stat(p('file')).st_ino") == number
    assert not is_metacopy(upper(pair, "file"))
    assert upper(pair, "file", "bottom").read_bytes() == DATA


def test_an_open_file_answers_for_itself_when_its_metacopy_is_removed(pair: Pair) -> None:
    pair.same("os.chmod(p('file'), 0o640)")
    pair.same("reader = os.open(p('file'), os.O_RDONLY)")
    pair.same("os.unlink(p('file'))")
    pair.same("os.fchmod(reader, 0o600)")
    assert pair.same("oct(os.fstat(reader).st_mode)") == "0o100600"
    assert pair.same("os.pread(reader, 1 << 21, 0)") == DATA
    assert pair.same("os.path.exists(p('file'))") is False
    assert oct(upper(pair, "file", "bottom").stat().st_mode) == "0o100644"


def test_either_shows_what_the_other_wrote(tmp_path: Path) -> None:
    make_layers(tmp_path)
    seen = SEEN.replace("p('file')", "p(path)")
    shown = f"[({seen}, open(p(path), 'rb').read()) for path in ('file', 'dir/file')]"
    with writable.both(tmp_path, LAYERS, "--metacopy", kernel=KERNEL) as pair:
        pair.same("os.chmod(p('file'), 0o640)")
        pair.same("os.chown(p('dir/file'), 7, 8)")
        wanted = pair.same(shown)
    with writable.swapped(tmp_path, LAYERS, "--metacopy", kernel=KERNEL) as (mount, native):
        assert native.value(shown) == wanted
        assert mount.value(shown) == wanted
        mount.value("f = open(p('file'), 'ab'); f.write(b'more'); f.close()")
        assert mount.value("open(p('file'), 'rb').read()") == DATA + b"more"
    assert not is_metacopy(tmp_path / "theirs" / "file")


def test_diff_and_commit_find_the_bytes_below(tmp_path: Path) -> None:
    writable.write(tmp_path / "low" / "dir" / "file", DATA)
    (tmp_path / "up").mkdir()
    with writable.union(tmp_path, ["low"], "up", "mnt", "--metacopy") as daemon:
        client = Client(daemon.mountpoint, daemon)
        client.value("os.chmod(p('dir/file'), 0o600)")
        client.close()
        assert is_metacopy(tmp_path / "up" / "dir" / "file")
        assert zcfuse("diff", daemon.mountpoint).stdout.splitlines() == ["C dir/file"]
        for made in ("committed", "committed.tar"):
            result = zcfuse("commit", daemon.mountpoint, str(tmp_path / made))
            assert (result.returncode, result.stderr) == (0, "")
    copy = tmp_path / "committed" / "dir" / "file"
    assert (copy.read_bytes(), oct(copy.stat().st_mode)) == (DATA, "0o100600")
    assert not is_metacopy(copy)
    with tarfile.open(tmp_path / "committed.tar") as archive:
        member = archive.extractfile("dir/file")
        assert member is not None
        assert member.read() == DATA
    assert zcfuse("reset", str(tmp_path / "up")).returncode == 0
    assert os.listdir(tmp_path / "up") == []


@pytest.mark.parametrize("option", [[], ["--metacopy"]])
def test_bytes_stay_below_only_if_that_is_asked_for_and_a_directory_has_them(
    tmp_path: Path, option: list[str]
) -> None:
    writable.write(tmp_path / "low" / "file", DATA)
    writable.write(tmp_path / "member", DATA)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "member", "member")
    (tmp_path / "up").mkdir()
    with writable.union(tmp_path, ["low", "a.tar"], "up", "mnt", *option) as daemon:
        client = Client(daemon.mountpoint, daemon)
        client.value("[os.chmod(p(name), 0o600) for name in ('file', 'member')]")
        client.close()
    assert is_metacopy(tmp_path / "up" / "file") is bool(option)
    assert (tmp_path / "up" / "member").read_bytes() == DATA


@pytest.mark.parametrize("option", ["--metacopy", "--redirect-dir"])
@pytest.mark.parametrize("words", [(), ("--upper", "up")])
@requires("ordinary user")
def test_marks_of_root_are_refused_without_an_upper_layer_or_as_an_ordinary_user(
    ordinary_user: OrdinaryUser, words: tuple[str, ...], option: str
) -> None:
    above = Path(ordinary_user.directory("above"))
    for name in ("low", "up", "mnt"):
        (above / name).mkdir()
        os.chown(above / name, ordinary_user.uid, -1)
    given = [str(above / word) if word == "up" else word for word in words]
    command = [sys.executable, "-m", "zcfuse", "mount", option, *given]
    result = ordinary_user.run(*command, "--layer", str(above / "low"), str(above / "mnt"))
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert option in result.stderr
