"""Push: what the kernel keeps without a limit is never stale once a fence has come back.

docs/semantics.md, "Changes that are pushed". The stress program compares whole trees while readers
hammer the mount; ``make coherence`` runs it for longer, and on further filesystems.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.integration.conftest import command, kernel_mount, serving
from tests.integration.counts import counts
from tests.support import Daemon, requires

pytestmark = requires("mounting", "root")

PUSH: Final = ("--coherence", "push")
ROUNDS: Final = int(os.environ.get("ZCFUSE_COHERENCE_ROUNDS", "60"))
# `make coherence` adds those that need an image file and a program to make them.
FILESYSTEMS: Final = (
    ["tmpfs", "xfs", "btrfs"] if "ZCFUSE_COHERENCE_ROUNDS" in os.environ else ["tmpfs"]
)
FILES: Final = 2000


def coherence(daemon: Daemon, name: str) -> int:
    return int(daemon.status()["datapath"]["coherence"][name])


def sync(daemon: Daemon) -> None:
    daemon.run(sys.executable, "-m", "zcfuse", "sync", daemon.mountpoint)


def stress(daemon: Daemon, *sources: str) -> str:
    """Run the stress program; what it prints is what it found stale."""
    argv = [sys.executable, "-m", "tests.coherence.stress", str(ROUNDS), "1", daemon.mountpoint]
    timeout = 30 + 2 * ROUNDS
    result = subprocess.run([*argv, *sources], capture_output=True, text=True, timeout=timeout)
    return (result.stdout + result.stderr).strip()


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_mirror_shows_what_the_backing_tree_is_after_each_fence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with serving(tmp_path, str(source), *PUSH) as daemon:
        assert stress(daemon, str(source)) == ""
        assert coherence(daemon, "pushes") > 0


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_union_shows_a_change_of_either_layer_after_each_fence(tmp_path: Path) -> None:
    layers = [tmp_path / "upper", tmp_path / "lower"]
    for layer in layers:
        layer.mkdir()
    options = [text for layer in layers for text in ("--layer", str(layer))]
    with serving(tmp_path, "", *options, *PUSH) as daemon:
        assert stress(daemon, *map(str, layers)) == ""


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_another_filesystem_reports_as_much(tmp_path: Path, filesystem: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with kernel_mount(*_new_filesystem(tmp_path, filesystem), str(source)):
        (source / "tree").mkdir()
        with serving(tmp_path, str(source / "tree"), *PUSH) as daemon:
            assert stress(daemon, str(source / "tree")) == ""


def _new_filesystem(directory: Path, kind: str) -> list[str]:
    if kind == "tmpfs":
        return ["-t", "tmpfs", "tmpfs"]
    image = directory / "image"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    command(f"mkfs.{kind}", str(image))
    return ["-o", "loop", str(image)]


def test_a_second_walk_of_many_files_sends_almost_no_request(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number}").touch()
    with serving(tmp_path, str(source), *PUSH) as daemon:
        daemon.run("find", daemon.mountpoint, "-size", "+1")
        before = sum(counts(daemon).datapath["requests"].values())
        daemon.run("find", daemon.mountpoint, "-size", "+1")
        assert sum(counts(daemon).datapath["requests"].values()) - before < 100


def test_a_missing_name_is_kept_until_a_file_of_that_name_is_made(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with serving(tmp_path, str(source), *PUSH) as daemon:
        for _ in range(3):
            daemon.run("test", "!", "-e", daemon.path("new"))
        assert counts(daemon).request("LOOKUP") == 1
        (source / "new").write_bytes(b"here")
        sync(daemon)
        assert daemon.run("cat", daemon.path("new")).stdout == b"here"


@pytest.mark.alone
def test_lost_events_make_the_kernel_ask_again_for_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    kept = [source / f"{number}" for number in range(50)]
    for path in kept:
        path.write_bytes(b"old")
    limit = Path("/proc/sys/fs/fanotify/max_queued_events")
    before = limit.read_text()
    limit.write_text("16")
    try:
        with serving(tmp_path, str(source), *PUSH) as daemon:
            daemon.run("find", daemon.mountpoint, "-size", "+1")
            # A daemon that runs empties the queue before it is full.
            os.kill(daemon.pid, signal.SIGSTOP)
            try:
                for number in range(100):
                    (source / f"more{number}").touch()
                for path in kept:
                    path.write_bytes(b"and new")
            finally:
                os.kill(daemon.pid, signal.SIGCONT)
            sync(daemon)
            sizes = daemon.run("stat", "-c", "%s", *(daemon.path(path.name) for path in kept))
            assert sizes.stdout.split() == [b"7"] * len(kept)
            assert coherence(daemon, "overflows") > 0
            assert coherence(daemon, "epochs") > 0
    finally:
        limit.write_text(before)


def test_a_mount_on_a_directory_of_ours_survives_changes_around_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    with serving(tmp_path, str(source), *PUSH) as daemon:
        below = daemon.path("below")
        with kernel_mount("-t", "tmpfs", "tmpfs", below):
            daemon.run("touch", f"{below}/inside")
            (source / "below").chmod(0o700)
            (source / "unrelated").touch()
            os.rename(source / "below", source / "moved")
            os.rename(source / "moved", source / "below")
            sync(daemon)
            assert daemon.run("ls", below).stdout == b"inside\n"
            assert coherence(daemon, "left_out") > 0


def test_a_filesystem_that_does_not_report_changes_is_asked_again_as_before(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    ramfs = kernel_mount("-t", "ramfs", "ramfs", str(source))
    with ramfs, serving(tmp_path, str(source), *PUSH) as daemon:
        assert daemon.status()["datapath"]["coherence"]["refused"] == {"push_filesystem": 1}


def test_without_the_right_to_watch_a_filesystem_answers_hold_for_a_time(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    under = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    result = subprocess.run(
        [*under, sys.executable, "-c", _REFUSAL, str(source)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (result.stdout.strip(), result.stderr) == ("push_not_permitted", "")


# A data path over a socket pair needs no right to mount.
_REFUSAL: Final = """
import os, socket, sys
from zcfuse.datapath import Config, DataPath, upcall_pair
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
up, down, size = upcall_pair(1 << 20)
config = Config()
config.push = True
path = DataPath(ours.detach(), up, config, device=False)
path.lease_directory(1, os.open(sys.argv[1], os.O_PATH))
print(path.push_changes(1))
path.stop()
"""
