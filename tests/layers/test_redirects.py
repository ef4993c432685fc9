"""Renames of directories of a layer: ``--redirect-dir`` beside overlayfs's redirect_dir=on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH
from tests.layers import writable
from tests.layers.conftest import dump
from tests.layers.kills import tree_of
from tests.support import Daemon, requires, skip_unless

pytestmark = requires("mounting", "root", "overlay layers")

MARK = "trusted.overlay.redirect"
KERNEL = ",redirect_dir=on"
LAYERS = ["top", "bottom"]
LONG = "n" * 100
WALK = "sorted((at.removeprefix(p('')), sorted(d), sorted(f)) for at, d, f in os.walk(p('')))"
HELPERS = """
import ctypes
def exchange(one, other):
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(-100, p(one), -100, p(other), 2):
        raise OSError(ctypes.get_errno(), '')
def read(name):
    with open(p(name), 'rb') as file:
        return file.read()
"""


def make_layers(above: Path) -> None:
    for layer in LAYERS:
        writable.write(above / layer / "merged" / layer, layer.encode())
        writable.write(above / layer / "merged" / "both", layer.encode())
    writable.write(above / "bottom" / "low" / "deep" / "file", b"low")
    writable.write(above / "bottom" / "low" / "deep" / "deeper" / "file", b"deeper")
    writable.write(above / "bottom" / "low" / "data", b"data")
    writable.write(above / "bottom" / LONG / LONG / LONG / "file", b"far down")
    (above / "bottom" / "empty").mkdir()


@pytest.fixture(params=["pool", PASSTHROUGH])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Our union and the kernel's overlayfs; afterwards each shows what the other wrote."""
    skip_unless("mounting", "root", "overlay layers")
    make_layers(tmp_path)
    options = ("--redirect-dir", "--path", request.param)
    with writable.both(tmp_path, LAYERS, *options, kernel=KERNEL) as pair:
        pair.same(HELPERS)
        yield pair
        wanted = pair.same(WALK)
        ours, theirs = (dump(os.fsdecode(one.value("p('')"))) for one in (pair.mount, pair.native))
        assert ours.keys() == theirs.keys()
    with writable.swapped(tmp_path, LAYERS, *options) as clients:
        for client in clients:
            assert client.value(WALK) == wanted


def marks(above: Path, *names: str) -> list[list[bytes | None]]:
    """The redirects of directories that each of the two wrote."""
    found: list[list[bytes | None]] = []
    for name in names:
        both: list[bytes | None] = []
        for whose in ("ours", "theirs"):
            path = above / whose / name
            both.append(os.getxattr(path, MARK) if MARK in os.listxattr(path) else None)
        found.append(both)
    return found


def test_a_directory_keeps_its_contents_its_number_and_what_clients_have_of_it(
    pair: Pair, tmp_path: Path
) -> None:
    pair.same("file = open(p('low/deep/file'), 'rb'); os.chdir(p('low/deep'))")
    number = pair.mount.value("os.stat(p('low/deep')).st_ino")
    pair.same("os.rename(p('low'), p('moved'))")
    pair.same("os.path.exists(p('low'))")
    assert pair.same("read('moved/deep/file')") == b"low"
    assert pair.same("file.read()") == b"low"
    assert pair.same("os.listdir('.') and sorted(os.listdir('.'))") == ["deeper", "file"]
    pair.same("open('new', 'wb').write(b'new')")
    assert pair.same("read('moved/deep/new')") == b"new"
    assert pair.mount.value("os.stat('.').st_ino") == number
    assert marks(tmp_path, "moved") == [[b"low", b"low"]]
    assert not (tmp_path / "ours" / "moved" / "data").exists()


def test_redirects_name_the_path_that_the_layers_have(pair: Pair, tmp_path: Path) -> None:
    pair.same("os.rename(p('low'), p('a'))")
    pair.same("os.mkdir(p('new'))")
    pair.same("os.rename(p('a/deep'), p('new/b'))")
    pair.same("os.rename(p('new/b/deeper'), p('new/b/c'))")
    pair.same("os.rename(p('new/b/c'), p('c'))")
    pair.same("os.rename(p('a'), p('merged/low'))")
    pair.same("os.rename(p('merged'), p('new/merged'))")
    names = ("new/b", "c", "new/merged", "new/merged/low")
    leads_to = (b"/low/deep", b"/low/deep/deeper", b"/merged", b"/low")
    assert marks(tmp_path, *names) == [[path, path] for path in leads_to]
    assert pair.same("read('c/file')") == b"deeper"
    assert pair.same("read('new/merged/both')") == b"top"
    assert pair.same("read('new/merged/low/data')") == b"data"


def test_a_directory_made_under_the_old_name_is_empty(pair: Pair) -> None:
    pair.same("os.rename(p('merged'), p('moved'))")
    pair.same("os.mkdir(p('merged'))")
    assert pair.same("os.listdir(p('merged'))") == []
    pair.same("os.rmdir(p('merged'))")
    pair.same("os.rename(p('moved'), p('merged'))")
    assert pair.same("sorted(os.listdir(p('merged')))") == [b"both", b"bottom", b"top"]


def test_two_directories_change_places(pair: Pair) -> None:
    pair.same("exchange('low/deep', 'merged')")
    assert pair.same("read('merged/file')") == b"low"
    assert pair.same("read('low/deep/both')") == b"top"
    pair.same("exchange('low/deep', 'low/data')")
    assert pair.same("read('low/data/both')") == b"top"
    pair.same("os.mkdir(p('pure')); exchange('pure', 'low/data')")
    assert pair.same("os.listdir(p('low/data'))") == []


def test_a_moved_directory_takes_the_place_of_an_empty_one(pair: Pair) -> None:
    assert pair.same("os.rename(p('low'), p('merged'))") == "ENOTEMPTY"
    assert pair.same("os.rename(p('low'), p('low/deep/x'))") == "EINVAL"
    pair.same("os.rename(p('low'), p('empty'))")
    assert pair.same("read('empty/data')") == b"data"
    pair.same("import shutil; shutil.rmtree(p('empty'))")
    assert pair.same("os.path.exists(p('empty'))") is False
    assert pair.same("os.path.exists(p('low'))") is False


def test_a_path_that_is_too_long_for_a_redirect_gives_exdev(pair: Pair) -> None:
    far = "/".join([LONG] * 3)
    assert pair.same(f"os.rename(p('{far}'), p('near'))") == "EXDEV"
    pair.same(f"os.rename(p('{far}'), p('{LONG}/{LONG}/near'))")
    assert pair.same(f"read('{LONG}/{LONG}/near/file')") == b"far down"


RENAMES = (
    "os.rename(p('low'), p('moved'))",
    "os.rename(p('moved/deep'), p('far'))",
    "os.rename(p('merged'), p('moved/merged'))",
    "os.mkdir(p('merged')); open(p('merged/top'), 'wb').write(b'new')",
    "os.unlink(p('moved/merged/bottom'))",
    "open(p('far/file'), 'ab').write(b' more')",
    "os.chmod(p('far/deeper/file'), 0o4755)",
    "os.link(p('moved/data'), p('link'))",
    "os.setxattr(p('far'), 'user.note', b'value')",
    "os.mkdir(p('moved/pure')); os.rename(p('moved/pure'), p('moved/purer'))",
)
RENAMED = [
    *("R low/deep -> far", "C far", "C far/deeper/file", "C far/file", "A link"),
    *("D merged/both", "D merged/bottom", "C merged/top"),
    *("R low -> moved", "R merged -> moved/merged", "D moved/merged/bottom", "A moved/purer"),
]


@pytest.fixture
def renamed(tmp_path: Path) -> Iterator[str]:
    """A union of which clients renamed directories."""
    make_layers(tmp_path)
    (tmp_path / "up").mkdir()
    options = ("--redirect-dir", "--metacopy")
    with writable.union(tmp_path, LAYERS, "up", "mnt", *options) as daemon:
        client = Client(daemon.mountpoint, daemon)
        for change in RENAMES:
            client.value(change)
        client.close()
        yield daemon.mountpoint


def zcfuse(*arguments: str) -> list[str]:
    command = [sys.executable, "-m", "zcfuse", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def unpack(archive: Path, into: Path) -> None:
    """Apply a layer to a tree as the OCI image specification says."""
    with tarfile.open(archive) as members:
        # Python 3.11 before 3.11.4 has no filters, and ignores the attribute.
        members.extraction_filter = lambda member, _: member
        for member in members:
            above, name = os.path.split(into / member.name)
            if name == ".wh..wh..opq":
                for old in Path(above).iterdir():  # the mark comes before the directory's entries
                    shutil.rmtree(old) if old.is_dir() else old.unlink()
            elif name.startswith(".wh."):
                hidden = Path(above) / name.removeprefix(".wh.")
                shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
            else:
                members.extract(member, into)


def test_diff_lists_renamed_directories_and_what_changed_in_them_since(renamed: str) -> None:
    assert zcfuse("diff", renamed) == RENAMED


def test_a_committed_directory_has_the_whole_contents_of_renamed_directories(
    renamed: str, tmp_path: Path
) -> None:
    zcfuse("commit", renamed, str(tmp_path / "layer"))
    assert (tmp_path / "layer" / ".wh.low").exists()
    assert (tmp_path / "layer" / "moved" / ".wh..wh..opq").exists()
    (tmp_path / "again").mkdir()
    layers = ["layer", *LAYERS]
    words = [word for layer in layers for word in ("--layer", str(tmp_path / layer))]
    daemon = Daemon("", str(tmp_path / "again"), *words, log=str(tmp_path / "again.log"))
    try:
        assert writable.seen(str(tmp_path / "again")) == writable.seen(renamed)
    finally:
        daemon.unmount()


def test_a_committed_archive_unpacks_over_the_layers_to_the_same_tree(
    renamed: str, tmp_path: Path
) -> None:
    zcfuse("commit", renamed, str(tmp_path / "layer.tar"))
    plain = tmp_path / "plain"
    for layer in reversed(LAYERS):
        shutil.copytree(tmp_path / layer, plain, dirs_exist_ok=True)
    unpack(tmp_path / "layer.tar", plain)
    assert tree_of(plain) == tree_of(Path(renamed))
