"""Push by a daemon that may not watch filesystems: names without a limit, attributes for a time.

docs/semantics.md, "Names alone".
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.coherence.pushed import PUSH, ROUNDS, coherence, stress, sync
from tests.integration.conftest import serving
from tests.integration.counts import counts
from tests.support import Mounter, OrdinaryUser, requires

pytestmark = requires("mounting", "root", "cc")

SHORT: Final = ("--cache-timeout", "0.001")
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
        assert stress(daemon, str(source)) == ""
        assert coherence(daemon, "pushes") > 0
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_names_only": 1}


def test_names_missing_names_and_listings_are_kept_beyond_the_cache_timeout(
    tmp_path: Path, refused: dict[str, str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number}").touch()
    with serving(tmp_path, str(source), *PUSH, *SHORT, env=refused) as daemon:
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
