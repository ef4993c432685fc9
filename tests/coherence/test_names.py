"""Push by a daemon that may not watch filesystems: names without a limit, attributes for a time.

docs/semantics.md, "Names alone".
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.coherence.marks import (
    hide_a_file_by_an_attribute,
    show_a_part_whose_event_was_lost,
    show_what_a_name_between_no_longer_hides,
)
from tests.coherence.pushed import PUSH, ROUNDS, coherence, short_queue, stress, sync, union
from tests.integration.conftest import kernel_mount, serving
from tests.integration.counts import counts
from tests.support import DEADLINE_S, Daemon, Mounter, OrdinaryUser, eventually, requires

pytestmark = requires("mounting", "root", "cc")

SHORT: Final = ("--cache-timeout", "0.001")
# Ticks of the kernel's clock, by which it counts that time.
SETTLE: Final = ("--settle", "0.05")
# Each look is a request, so a round takes longer than elsewhere.
SLOW_ROUNDS: Final = ROUNDS // 5
FILES: Final = 200


@pytest.fixture(name="refused")
def _refused(ablation: str) -> dict[str, str]:
    return {"LD_PRELOAD": ablation, "ZCFUSE_MARK_ERRNO": str(errno.EPERM)}


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_mirror_shows_what_the_backing_tree_is_after_each_fence(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with serving(tmp_path, str(source), *PUSH, *SHORT, env=refused) as daemon:
        assert stress(daemon, str(source), *SETTLE, rounds=SLOW_ROUNDS) == ""
        assert coherence(daemon, "pushes") > 0
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_names_only": 1}


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_union_shows_a_change_of_either_layer_after_each_fence(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    with union(tmp_path, 2, *PUSH, *SHORT, env=refused) as (layers, daemon):
        assert stress(daemon, *map(str, layers), *SETTLE, rounds=SLOW_ROUNDS) == ""
        assert coherence(daemon, "epochs") > 0
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_names_only": 1}


@contextlib.contextmanager
def _directories(
    kind: str, base: Path, *options: str, env: Mapping[str, str]
) -> Iterator[tuple[list[Path], Daemon]]:
    if kind == "union":
        with union(base, 3, *options, env=env) as shown:
            yield shown
        return
    (base / "source").mkdir()
    with serving(base, str(base / "source"), *options, env=env) as daemon:
        yield [base / "source"], daemon


@pytest.mark.parametrize("kind", ["mirror", "union"])
def test_names_missing_names_and_listings_are_kept_beyond_the_cache_timeout(
    tmp_path: Path, refused: dict[str, str], kind: str
) -> None:
    with _directories(kind, tmp_path, *PUSH, *SHORT, env=refused) as (directories, daemon):
        source = directories[-1]
        for number in range(FILES):
            (source / f"{number}").touch()
        sync(daemon)
        daemon.run("ls", daemon.mountpoint)
        before = counts(daemon)
        for _ in range(2):
            daemon.run("ls", daemon.mountpoint)
            daemon.run("test", "-e", daemon.path("1"))
            daemon.run("test", "!", "-e", daemon.path("missing"))
        after = counts(daemon)
        assert after.request("READDIRPLUS") == before.request("READDIRPLUS")
        assert after.request("LOOKUP") - before.request("LOOKUP") == 1
        (source / "1").unlink()
        (source / "missing").touch()
        sync(daemon)
        shown = daemon.run("ls", daemon.mountpoint).stdout.split()
        assert b"missing" in shown
        assert b"1" not in shown
        assert len(shown) == FILES
        daemon.run("test", "!", "-e", daemon.path("1"))
        daemon.run("test", "-e", daemon.path("missing"))


def test_a_directory_shows_what_a_name_in_a_layer_between_no_longer_hides(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    with union(tmp_path, 3, *PUSH, *SHORT, env=refused) as (layers, daemon):
        show_what_a_name_between_no_longer_hides(layers, daemon)


def test_a_file_that_becomes_a_whiteout_by_its_attribute_is_hidden(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    with union(tmp_path, 2, *PUSH, *SHORT, env=refused) as (layers, daemon):
        hide_a_file_by_an_attribute(layers, daemon)


@pytest.mark.alone
def test_a_part_of_a_directory_is_shown_though_its_event_was_lost(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    with short_queue("inotify"), union(tmp_path, 2, *PUSH, env=refused) as (layers, daemon):
        show_a_part_whose_event_was_lost(layers, daemon)


def test_a_union_with_an_archive_shows_its_new_members_and_the_names_above_it(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    upper, archive = tmp_path / "upper", tmp_path / "lower.tar"
    upper.mkdir()
    _write_archive(archive, "old")
    layers = ["--layer", str(upper), "--layer", str(archive)]
    with serving(tmp_path, "", *layers, *PUSH, *SHORT, env=refused) as daemon:
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_names_only": 1}
        assert daemon.run("ls", daemon.mountpoint).stdout == b"old\n"
        (upper / "above").touch()
        sync(daemon)
        assert daemon.run("ls", daemon.mountpoint).stdout == b"above\nold\n"
        _write_archive(tmp_path / "next.tar", "renewed")
        os.rename(tmp_path / "next.tar", archive)
        sync(daemon)
        assert daemon.run("ls", daemon.mountpoint).stdout == b"above\nrenewed\n"


def _write_archive(path: Path, name: str) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))


def test_a_union_with_a_layer_that_reports_nothing_is_asked_again_as_before(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    layers = [tmp_path / "upper", tmp_path / "lower"]
    for layer in layers:
        layer.mkdir()
    options = [text for layer in layers for text in ("--layer", str(layer))]
    with (
        kernel_mount("-t", "ramfs", "ramfs", str(layers[1])),
        serving(tmp_path, "", *options, *PUSH, *SHORT, env=refused) as daemon,
    ):
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_filesystem": 1}
        daemon.run("test", "!", "-e", daemon.path("new"))
        (layers[1] / "new").touch()
        assert eventually(lambda: daemon.run("ls", daemon.mountpoint).stdout == b"new\n")


@pytest.mark.parametrize("top", [0, 1])
def test_a_directory_in_use_is_watched_in_a_layer_that_gets_it(
    tmp_path: Path, refused: dict[str, str], top: int
) -> None:
    with union(tmp_path, 2, *PUSH, *SHORT, env=refused) as (layers, daemon):
        (layers[top] / "x" / "y").mkdir(parents=True)
        sync(daemon)
        user = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=daemon.path("x/y"))
        try:
            other = layers[1 - top] / "x"
            for made in (other, other / "y", other / "y" / "z"):
                daemon.run("test", "!", "-e", daemon.path("x/y/z/new"))
                made.mkdir()
                sync(daemon)
            daemon.run("test", "!", "-e", daemon.path("x/y/z/new"))
            (other / "y" / "z" / "new").touch()
            (other / "y" / "also").touch()
            sync(daemon)
            daemon.run("test", "-e", daemon.path("x/y/z/new"))
            assert daemon.run("ls", daemon.path("x/y")).stdout.split() == [b"also", b"z"]
        finally:
            user.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize(("rule", "stale"), [("watch", True), ("", False)])
def test_without_the_watch_of_a_directory_a_missing_name_is_stale(
    tmp_path: Path, refused: dict[str, str], rule: str, stale: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    env = {**refused, "ZCFUSE_WITHOUT": rule}
    with serving(tmp_path, str(source), *PUSH, *SHORT, env=env) as daemon:
        daemon.run("test", "!", "-e", daemon.path("new"))
        (source / "new").touch()
        sync(daemon)
        shown = daemon.run("sh", "-c", 'test -e "$0" || echo missing', daemon.path("new")).stdout
        assert shown == (b"missing\n" if stale else b"")


def test_a_file_that_changes_by_another_link_is_seen_after_the_cache_timeout(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    os.link(source / "file", tmp_path / "link")
    with serving(tmp_path, str(source), *PUSH, *SHORT, env=refused) as daemon:
        daemon.run("stat", daemon.path("file"))
        (tmp_path / "link").write_bytes(b"more")
        sync(daemon)
        assert daemon.run("stat", "-c", "%s", daemon.path("file")).stdout == b"4\n"


def test_what_the_kernel_forgets_is_no_longer_watched(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "file").touch()
    with serving(tmp_path, str(source), *PUSH, env=refused) as daemon:
        daemon.run("stat", daemon.path("below/file"))
        assert coherence(daemon, "directories") == 2
        (source / "below" / "file").unlink()
        (source / "below").rmdir()
        sync(daemon)
        daemon.run("test", "!", "-e", daemon.path("below"))
        assert coherence(daemon, "directories") == 1


def test_directories_beyond_the_limit_of_watches_are_timed_and_counted(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    (source / "a" / "file").touch()
    env = {**refused, "ZCFUSE_WATCHES": "2"}  # the fence, the root
    with serving(tmp_path, str(source), *PUSH, *SHORT, env=env) as daemon:
        daemon.run("stat", daemon.path("a/file"))
        refusals = daemon.status()["datapath"]["coherence"]["refused"]
        assert refusals == {"push_names_only": 1, "push_no_watch": 1}
        (source / "a" / "file").unlink()
        daemon.run("sleep", "0.05")
        daemon.run("test", "!", "-e", daemon.path("a/file"))


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_gets_names_without_a_limit(
    ordinary_user: OrdinaryUser, mounted: Mounter
) -> None:
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    Path(source, "file").touch()
    daemon = mounted(*PUSH, *SHORT, source=source, mountpoint=mountpoint, user=ordinary_user)
    daemon.run("stat", daemon.path("file"))
    before = counts(daemon).request("LOOKUP")
    daemon.run("stat", daemon.path("file"))
    assert counts(daemon).request("LOOKUP") == before
    os.rename(f"{source}/file", f"{source}/moved")
    sync(daemon)
    daemon.run("test", "!", "-e", daemon.path("file"))
    daemon.run("test", "-e", daemon.path("moved"))
    explained = daemon.run(sys.executable, "-m", "zcfuse", "explain", daemon.path("moved")).stdout
    assert b"changes of names alone are pushed" in explained
