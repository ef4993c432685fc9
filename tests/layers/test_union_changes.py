"""``zcfuse diff``, ``commit`` and ``reset``: what clients changed, as a list and as a layer."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.layers import writable
from tests.support import Daemon, requires
from zcfuse.tree import Union

pytestmark = requires("mounting", "root")

CHANGES = (
    "open(p('new'), 'xb').close()",
    "f = open(p('file'), 'ab'); f.write(b'more'); f.close()",
    "open(p('untouched'), 'r+b').close()",
    "os.unlink(p('dir/gone'))",
    "import shutil; shutil.rmtree(p('replaced'))",
    "os.mkdir(p('replaced'))",
    "open(p('replaced/b'), 'xb').close()",
    "os.chmod(p('dir/kept'), 0o4755)",
    "os.link(p('new'), p('dir/link'))",
    "os.symlink('new', p('symlink'))",
    "os.setxattr(p('dir'), 'user.note', b'value')",
)
EXPECTED = [
    *("C dir", "D dir/gone", "C dir/kept", "A dir/link", "C file", "A new"),
    *("D replaced/a", "C replaced/b", "A symlink"),
]


@pytest.fixture
def changed(tmp_path: Path) -> Iterator[Daemon]:
    for name in ("file", "untouched", "dir/gone", "dir/kept", "replaced/a", "replaced/b"):
        writable.write(tmp_path / "low" / name, name.encode())
    (tmp_path / "up").mkdir()
    with writable.union(tmp_path, ["low"], "up", "mnt") as daemon:
        client = Client(daemon.mountpoint, daemon)
        for change in CHANGES:
            client.value(change)
        client.close()
        yield daemon


def zcfuse(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zcfuse", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_diff_lists_what_was_added_changed_and_removed(changed: Daemon) -> None:
    listed = zcfuse("diff", changed.mountpoint)
    assert listed.stdout.splitlines() == EXPECTED, listed.stderr


def test_a_committed_directory_is_a_layer_that_shows_the_same_tree(
    changed: Daemon, tmp_path: Path
) -> None:
    assert zcfuse("commit", changed.mountpoint, str(tmp_path / "layer")).returncode == 0
    assert (tmp_path / "layer" / "dir" / ".wh.gone").exists()
    again = tmp_path / "again"
    again.mkdir()
    layers = ("--layer", str(tmp_path / "layer"), "--layer", str(tmp_path / "low"))
    daemon = Daemon("", str(again), *layers, log=str(tmp_path / "again.log"))
    try:
        assert writable.seen(str(again)) == writable.seen(changed.mountpoint)
    finally:
        daemon.unmount()


def test_a_committed_archive_is_a_layer_that_shows_the_same_tree(
    changed: Daemon, tmp_path: Path
) -> None:
    archive = str(tmp_path / "layer.tar")
    assert zcfuse("commit", changed.mountpoint, archive).returncode == 0
    with tarfile.open(archive) as members:
        assert members.getmember("dir").pax_headers["SCHILY.xattr.user.note"] == "value"
    again = tmp_path / "again"
    again.mkdir()
    layers = ("--layer", archive, "--layer", str(tmp_path / "low"))
    daemon = Daemon("", str(again), *layers, log=str(tmp_path / "again.log"))
    try:
        expected = writable.seen(changed.mountpoint)
        assert [one[:-1] for one in writable.seen(str(again))] == [one[:-1] for one in expected]
    finally:
        daemon.unmount()


def test_commit_writes_into_no_directory_that_has_something(
    changed: Daemon, tmp_path: Path
) -> None:
    refused = zcfuse("commit", changed.mountpoint, str(tmp_path / "low"))
    assert refused.returncode == 2
    assert "not empty" in refused.stderr


def test_reset_waits_for_the_unmount_and_then_the_layers_show_as_they_are(
    changed: Daemon, tmp_path: Path
) -> None:
    refused = zcfuse("reset", str(tmp_path / "up"))
    assert refused.returncode == 1
    assert "another mount has this upper layer" in refused.stderr
    changed.unmount()
    assert zcfuse("reset", str(tmp_path / "up")).returncode == 0
    assert os.listdir(tmp_path / "up") == []
    Union([tmp_path / "low"], upper=tmp_path / "up").close()


def test_diff_of_another_mount_says_that_it_has_no_upper_layer(tmp_path: Path) -> None:
    writable.write(tmp_path / "low" / "file", b"x")
    (tmp_path / "mnt").mkdir()
    daemon = Daemon(str(tmp_path / "low"), str(tmp_path / "mnt"), log=str(tmp_path / "log"))
    told = zcfuse("diff", daemon.mountpoint)
    daemon.unmount()
    assert told.returncode == 1
    assert "mount it with --upper" in told.stderr
