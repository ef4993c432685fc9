"""Archives and manifests that change below a mount with pushes: docs/semantics.md."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.coherence.archives import write_archive
from tests.coherence.pushed import PUSH, ROUNDS, sync
from tests.coherence.test_push import FILESYSTEMS, new_filesystem
from tests.integration.conftest import kernel_mount, serving
from tests.integration.counts import counts
from tests.support import DEADLINE_S, Daemon, eventually, let_pass, requires
from zcfuse import Archive, MountOptions, mount

pytestmark = requires("mounting", "root")

_LOOK_AGAIN_S: Final = 0.02
ARCHIVE_ROUNDS: Final = max(5, ROUNDS // 10)  # each of them indexes a few archives

# Lists an open directory, and again after a line.
_LISTER: Final = """
import os, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
print(os.listdir(directory), flush=True)
sys.stdin.readline()
print(os.listdir(directory), flush=True)
"""


def _replaced(path: Path, **members: bytes) -> None:
    new = path.with_name(f".new{path.suffix}")
    write_archive(str(new), members)
    os.rename(new, path)


def _cat(daemon: Daemon, *names: str) -> bytes:
    return daemon.run("cat", *(daemon.path(name) for name in names)).stdout


def _listed(daemon: Daemon, name: str = "") -> list[bytes]:
    return daemon.run("ls", daemon.path(name)).stdout.split()


@contextlib.contextmanager
def _reader(daemon: Daemon, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a client that has opened a file; it reads the file once its input ends."""
    script = 'exec 3<"$0"; echo; read end; exec cat <&3'
    argv = ["sh", "-c", script, daemon.path(name)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"\n"
        yield reader


def test_a_replaced_archive_shows_its_members_while_readers_finish_with_the_old_bytes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "archive.tar"
    old = bytes(4 << 20)
    _replaced(path, same=old, gone=b"gone")
    with serving(tmp_path, str(path), *PUSH) as daemon:
        assert _listed(daemon) == [b"gone", b"same"]
        daemon.run("test", "!", "-e", daemon.path("new"))
        with _reader(daemon, "same") as reader:
            _replaced(path, same=b"renewed", new=b"new")
            sync(daemon)
            assert _listed(daemon) == [b"new", b"same"]
            assert _cat(daemon, "same", "new") == b"renewednew"
            daemon.run("test", "!", "-e", daemon.path("gone"))
            assert reader.communicate(timeout=DEADLINE_S)[0] == old


def test_a_replaced_archive_shows_without_a_fence(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old")
    with serving(tmp_path, str(path), *PUSH) as daemon:
        assert _cat(daemon, "name") == b"old"
        _replaced(path, name=b"new", more=b"")
        assert eventually(lambda: _listed(daemon) == [b"more", b"name"])
        assert _cat(daemon, "name") == b"new"


def test_the_kernel_keeps_the_names_of_an_archive_until_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old")
    with serving(tmp_path, str(path), *PUSH, "--cache-timeout", "0.01") as daemon:
        for _ in range(3):
            daemon.run("stat", daemon.path("name"))
        assert counts(daemon).request("LOOKUP") == 1
        _replaced(path, name=b"new")
        sync(daemon)
        daemon.run("stat", daemon.path("name"))
        assert counts(daemon).request("LOOKUP") == 2


def test_a_broken_archive_leaves_the_names_of_the_old_one_and_one_line_in_the_log(
    tmp_path: Path,
) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old")
    with serving(tmp_path, str(path), *PUSH) as daemon:
        assert _listed(daemon) == [b"name"]
        path.write_bytes(b"no archive")
        for _ in range(2):
            sync(daemon)
        assert _listed(daemon) == [b"name"]
        assert b"Stale file handle" in daemon.run("cat", daemon.path("name"), check=False).stderr
        assert daemon.log().count("the mount goes on with what it showed") == 1
        _replaced(path, name=b"whole")
        sync(daemon)
        assert _cat(daemon, "name") == b"whole"


class _HalfWatched(Archive):
    """An archive one of whose directories cannot be watched."""

    looks = 0

    def watched(self) -> Collection[bytes]:
        return (*super().watched(), b"/missing")

    def look(self) -> Callable[[], None] | None:
        self.looks += 1
        return super().look()


async def test_a_directory_that_cannot_be_watched_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old")
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    tree = _HalfWatched(path)
    async with mount(tree, mountpoint, options=MountOptions(coherence="push")):
        for _ in range(3):
            looks = tree.looks
            _replaced(path, name=b"new")
            with trio.fail_after(DEADLINE_S):
                while tree.looks == looks:
                    await trio.sleep(_LOOK_AGAIN_S)
    assert caplog.text.count("/missing is looked at by a fence only") == 1


def _in_union(tmp_path: Path) -> list[str]:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "same").write_bytes(b"upper")
    return ["--layer", str(tmp_path / "upper"), "--layer", str(tmp_path / "archive.tar")]


@pytest.mark.parametrize("hidden", [(), ("--hide", "*.tmp")], ids=["all", "filtered"])
def test_a_replaced_archive_shows_its_members_below_the_layers_above_it(
    tmp_path: Path, hidden: tuple[str, ...]
) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, same=b"old", gone=b"gone", kept=b"old", **{"a.tmp": b"", "sub/old": b"old"})
    hides = bool(hidden)
    with serving(tmp_path, "", *_in_union(tmp_path), *hidden, *PUSH) as daemon:
        assert (b"a.tmp" in _listed(daemon)) is not hides
        assert _listed(daemon, "sub") == [b"old"]
        assert _cat(daemon, "same", "kept") == b"upperold"
        daemon.run("test", "!", "-e", daemon.path("new"))
        with _reader(daemon, "kept") as reader:
            _replaced(path, same=b"", kept=b"renewed", new=b"new", **{"sub/new": b"", "b.tmp": b""})
            sync(daemon)
            assert set(_listed(daemon)) - {b"b.tmp"} == {b"kept", b"new", b"same", b"sub"}
            assert (b"b.tmp" in _listed(daemon)) is not hides
            assert _listed(daemon, "sub") == [b"new"]
            assert _cat(daemon, "same", "kept", "new") == b"upperrenewednew"
            daemon.run("test", "!", "-e", daemon.path("gone"))
            assert reader.communicate(timeout=DEADLINE_S)[0] == b"old"
        # The directory above goes on pushing.
        (tmp_path / "upper" / "more").write_bytes(b"more")
        sync(daemon)
        assert _cat(daemon, "more") == b"more"


def test_a_union_of_archives_alone_shows_the_members_of_a_replaced_one(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper.tar", tmp_path / "lower.tar"
    _replaced(upper, name=b"upper")
    _replaced(lower, name=b"lower", other=b"old")
    layers = [text for path in (upper, lower) for text in ("--layer", str(path))]
    with serving(tmp_path, "", *layers, *PUSH) as daemon:
        assert daemon.status()["datapath"]["coherence"]["refused"] == {}
        assert _cat(daemon, "name", "other") == b"upperold"
        _replaced(upper, other=b"new")
        sync(daemon)
        assert _cat(daemon, "name", "other") == b"lowernew"


def test_a_replaced_archive_shows_its_members_below_a_filter(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old", **{"a.tmp": b""})
    with serving(tmp_path, str(path), "--hide", "*.tmp", *PUSH) as daemon:
        assert _listed(daemon) == [b"name"]
        _replaced(path, name=b"new", more=b"", **{"b.tmp": b""})
        sync(daemon)
        assert _listed(daemon) == [b"more", b"name"]
        assert _cat(daemon, "name") == b"new"


def test_a_directory_that_was_open_before_lists_the_new_members(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, old=b"")
    with serving(tmp_path, str(path), *PUSH) as daemon:
        argv = [sys.executable, "-c", _LISTER, daemon.mountpoint]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as lister:
            assert lister.stdout is not None
            assert lister.stdout.readline() == b"['old']\n"
            _replaced(path, new=b"")
            sync(daemon)
            assert lister.communicate(b"\n", DEADLINE_S)[0] == b"['new']\n"
        assert _listed(daemon) == [b"new"]


def test_an_archive_that_is_not_pushed_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    _replaced(path, name=b"old")
    with serving(tmp_path, str(path)) as daemon:
        assert _listed(daemon) == [b"name"]
        _replaced(path, other=b"new")
        let_pass(2.0)
        assert _listed(daemon) == [b"name"]
        assert b"Stale file handle" in daemon.run("cat", daemon.path("name"), check=False).stderr


def test_a_directory_of_archives_shows_those_that_come_and_not_those_that_go(
    tmp_path: Path,
) -> None:
    archives = tmp_path / "archives"
    archives.mkdir()
    _replaced(archives / "a.tar", name=b"a")
    _replaced(archives / "b.tar", name=b"b")
    with serving(tmp_path, "", "--archives", str(archives), *PUSH) as daemon:
        with _reader(daemon, "b/name") as reader:
            (archives / "b.tar").unlink()
            _replaced(archives / "c.zip", name=b"c")
            _replaced(archives / "a.tar", renewed=b"a")
            (archives / "broken.tar").write_bytes(b"no archive")
            sync(daemon)
            assert _listed(daemon) == [b"a", b"c"]
            assert _cat(daemon, "a/renewed", "c/name") == b"ac"
            assert reader.communicate(timeout=DEADLINE_S)[0] == b"b"
        assert daemon.log().count("broken.tar: ") == 1


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
@pytest.mark.timeout(120 + 3 * ROUNDS)
def test_a_directory_of_archives_shows_what_is_in_them_after_each_fence(
    tmp_path: Path, filesystem: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with kernel_mount(*new_filesystem(tmp_path, filesystem), str(source)):
        archives = source / "archives"
        archives.mkdir()
        _replaced(archives / "a.tar", name=b"a")
        argv = [sys.executable, "-m", "tests.coherence.archives", str(ARCHIVE_ROUNDS), "1"]
        with serving(tmp_path, "", "--archives", str(archives), *PUSH) as daemon:
            result = subprocess.run(
                [*argv, daemon.mountpoint, str(archives)],
                capture_output=True,
                text=True,
                timeout=60 + 3 * ROUNDS,
            )
        assert (result.stdout + result.stderr).strip() == ""


def _written(path: Path, *records: dict[str, object]) -> None:
    path.with_name(".new").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    os.rename(path.with_name(".new"), path)


def test_a_changed_manifest_shows_its_nodes_while_readers_finish_with_the_old_bytes(
    tmp_path: Path,
) -> None:
    manifest, data = tmp_path / "tree.jsonl", tmp_path / "data"
    data.write_bytes(b"bytes of a file")
    old = "old" * 100_000
    _written(
        manifest,
        {"path": "same", "file": str(data)},
        {"path": "sub/text", "text": old},
        {"path": "gone", "zeros": 1},
    )
    with serving(tmp_path, "", "--tree", str(manifest), *PUSH) as daemon:
        assert _listed(daemon) == [b"gone", b"same", b"sub"]
        daemon.run("test", "!", "-e", daemon.path("new"))
        number = daemon.run("stat", "-c", "%i", daemon.path("same")).stdout
        with _reader(daemon, "sub/text") as reader:
            _written(
                manifest,
                {"path": "same", "file": str(data)},
                {"path": "sub/text", "text": "renewed"},
                {"path": "new", "file": str(data), "length": 5},
            )
            sync(daemon)
            assert _listed(daemon) == [b"new", b"same", b"sub"]
            assert _cat(daemon, "same", "sub/text", "new") == b"bytes of a filerenewedbytes"
            assert daemon.run("stat", "-c", "%i", daemon.path("same")).stdout == number
            assert reader.communicate(timeout=DEADLINE_S)[0] == old.encode()


def test_a_fence_shows_what_became_of_the_files_that_a_manifest_names(tmp_path: Path) -> None:
    manifest, data = tmp_path / "tree.jsonl", tmp_path / "data"
    data.write_bytes(b"old")
    _written(manifest, {"path": "whole", "file": str(data)})
    hour = ("--cache-timeout", "3600")
    with serving(tmp_path, "", "--tree", str(manifest), *PUSH, *hour) as daemon:
        size = ["stat", "-c", "%s %a", daemon.path("whole")]
        assert daemon.run(*size).stdout == b"3 644\n"
        data.write_bytes(b"longer")
        data.chmod(0o600)
        assert daemon.run(*size).stdout == b"3 644\n"
        sync(daemon)
        assert daemon.run(*size).stdout == b"6 600\n"
        assert _cat(daemon, "whole") == b"longer"


def test_a_broken_manifest_leaves_the_old_tree_and_one_line_in_the_log(tmp_path: Path) -> None:
    manifest = tmp_path / "tree.jsonl"
    _written(manifest, {"path": "old", "text": "old"})
    with serving(tmp_path, "", "--tree", str(manifest), *PUSH) as daemon:
        manifest.write_text("{")
        for _ in range(2):
            sync(daemon)
        assert _cat(daemon, "old") == b"old"
        assert daemon.log().count("the mount goes on with what it showed") == 1
        _written(manifest, {"path": "whole", "text": "whole"})
        assert eventually(lambda: _listed(daemon) == [b"whole"])


def test_a_mirror_of_a_manifest_pushes_its_changes_while_the_mount_does_not(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "tree.toml"
    for name in ("pushed", "timed"):
        (tmp_path / name).mkdir()
    manifest.write_text(
        '[[node]]\npath = "pushed"\nmirror = "pushed"\ncoherence = "push"\n'
        '[[node]]\npath = "timed"\nmirror = "timed"\n'
    )
    hour = ("--cache-timeout", "3600")
    with serving(tmp_path, "", "--tree", str(manifest), *hour) as daemon:
        for name in ("pushed", "timed"):
            daemon.run("test", "!", "-e", daemon.path(name, "new"))
            (tmp_path / name / "new").touch()
        sync(daemon)
        daemon.run("test", "-e", daemon.path("pushed", "new"))
        daemon.run("test", "!", "-e", daemon.path("timed", "new"))
