"""Push: what the kernel keeps without a limit is never stale once a fence has come back.

docs/semantics.md, "Changes that are pushed". The stress program compares whole trees while readers
hammer the mount; ``make coherence`` runs it for longer, and on further filesystems.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

import pytest

from tests.coherence.marks import (
    hide_a_file_by_an_attribute,
    show_a_part_whose_event_was_lost,
    show_what_a_name_between_no_longer_hides,
)
from tests.coherence.pushed import PUSH, ROUNDS, STRICT, coherence, short_queue, stress, sync, union
from tests.integration.conftest import command, kernel_mount, serving
from tests.integration.counts import counts
from tests.support import DEADLINE_S, Daemon, eventually, let_pass, requires
from tests.survive.load import mounted, successor
from zcfuse.reasons import REASONS

pytestmark = requires("mounting", "root")

# `make coherence` adds those that need an image file and a program to make them.
FILESYSTEMS: Final = (
    ["tmpfs", "ext4", "xfs", "btrfs"] if "ZCFUSE_COHERENCE_ROUNDS" in os.environ else ["tmpfs"]
)
FILES: Final = 20_000
KILL_AFTER_S: Final = 1.0
KILLS: Final = max(4, ROUNDS // 20)


# `pool` caches pages, and `auto` passes through.
@pytest.mark.parametrize("path", ["auto", "pool"])
@pytest.mark.parametrize(("coherent", "count"), [(PUSH, "pushes"), (STRICT, "broken_leases")])
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_mirror_shows_what_the_backing_tree_is_after_each_fence(
    tmp_path: Path, coherent: tuple[str, ...], count: str, path: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with serving(tmp_path, str(source), *coherent, "--path", path) as daemon:
        assert stress(daemon, str(source)) == ""
        assert coherence(daemon, count) > 0


@pytest.mark.parametrize("coherent", [PUSH, STRICT])
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_union_shows_a_change_of_either_layer_after_each_fence(
    tmp_path: Path, coherent: tuple[str, ...]
) -> None:
    with union(tmp_path, 2, *coherent) as (layers, daemon):
        assert stress(daemon, *map(str, layers)) == ""


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_a_union_shows_the_changes_of_a_directory_above_an_archive(tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    archive = str(_archive(tmp_path))
    (tmp_path / "reference").mkdir()
    with (
        serving(tmp_path / "reference", archive) as reference,
        serving(tmp_path, "", "--layer", str(upper), "--layer", archive, *PUSH) as daemon,
    ):
        assert stress(daemon, str(upper), "--fixed", reference.mountpoint) == ""


def _archive(directory: Path) -> Path:
    """Make an archive of some names that the stress uses."""
    tree = directory / "tree"
    for name in ("a0", "x/a1", "x/b2/c3", "x/z/d0", "y/b1"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    path = directory / "lower.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tree, ".")
    return path


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_another_filesystem_reports_as_much(tmp_path: Path, filesystem: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with kernel_mount(*new_filesystem(tmp_path, filesystem), str(source)):
        (source / "tree").mkdir()
        with serving(tmp_path, str(source / "tree"), *PUSH) as daemon:
            assert stress(daemon, str(source / "tree")) == ""


@pytest.mark.parametrize("options", [PUSH, STRICT], ids=["push", "strict"])
@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_killed_daemons_leave_nothing_stale(tmp_path: Path, options: tuple[str, ...]) -> None:
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    mountpoint.mkdir()
    with mounted(str(mountpoint), [str(source), *options], str(tmp_path / "log")) as entry:
        argv = [sys.executable, "-m", "tests.coherence.stress", str(ROUNDS), "1"]
        stress = subprocess.Popen([*argv, entry.mountpoint, str(source)], stdout=subprocess.PIPE)
        generation = 0
        while stress.poll() is None and generation < KILLS:
            document = successor(entry, generation)
            assert document.survival is not None
            generation = document.survival.generation
            let_pass(KILL_AFTER_S)
            os.kill(document.processes["datapath"], signal.SIGKILL)
        assert stress.communicate(timeout=30 + 2 * ROUNDS)[0].strip() == b""
        assert generation > 2


def new_filesystem(directory: Path, kind: str) -> list[str]:
    """Return the arguments of mount(8) for an empty filesystem."""
    if kind == "tmpfs":
        return ["-t", "tmpfs", "tmpfs"]
    image = directory / "image"
    with open(image, "wb") as file:
        file.truncate(400 << 20)
    command(f"mkfs.{kind}", str(image))
    return ["-o", "loop", str(image)]


def test_a_change_below_a_directory_that_got_covered_while_in_use_is_pushed(
    tmp_path: Path,
) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    upper.mkdir()
    (lower / "x").mkdir(parents=True)
    layers = ["--layer", str(upper), "--layer", str(lower)]
    with serving(tmp_path, "", *layers, *PUSH) as daemon:
        user = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=daemon.path("x"))
        try:
            (upper / "x").mkdir()
            sync(daemon)
            assert daemon.run("ls", daemon.path("x")).stdout == b""
            (lower / "x" / "new").touch()
            sync(daemon)
            assert daemon.run("ls", daemon.path("x")).stdout == b"new\n"
        finally:
            user.communicate(timeout=DEADLINE_S)


def test_a_directory_in_use_shows_what_a_name_in_a_layer_between_no_longer_hides(
    tmp_path: Path,
) -> None:
    with union(tmp_path, 3, *PUSH) as (layers, daemon):
        show_what_a_name_between_no_longer_hides(layers, daemon)


def test_a_file_that_becomes_a_whiteout_by_its_attribute_is_hidden(tmp_path: Path) -> None:
    with union(tmp_path, 2, *PUSH) as (layers, daemon):
        hide_a_file_by_an_attribute(layers, daemon)


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


def test_explain_says_that_changes_of_a_file_are_pushed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    with serving(tmp_path, str(source), *PUSH) as daemon:
        assert "until it changes" in explained(daemon, "file")


def explained(daemon: Daemon, name: str) -> str:
    command = [sys.executable, "-m", "zcfuse", "explain", daemon.path(name)]
    return daemon.run(*command).stdout.decode()


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


@pytest.mark.parametrize("path", ["passthrough", "pool"])
def test_the_daemon_lets_go_of_a_file_that_is_removed(tmp_path: Path, path: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"bytes")
    with serving(tmp_path, str(source), *PUSH, "--path", path) as daemon:
        assert daemon.run("cat", daemon.path("file")).stdout == b"bytes"
        (source / "file").unlink()
        sync(daemon)
        assert eventually(lambda: not _descriptors(daemon, f"{source}/file"))


def _descriptors(daemon: Daemon, path: str) -> list[str]:
    """Return the daemon's open files of a path, removed or not."""
    found = []
    for link in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return [one for one in found if one.startswith(path)]


@pytest.mark.alone
def test_lost_events_make_the_kernel_ask_again_for_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    kept = [source / f"{number}" for number in range(50)]
    for path in kept:
        path.write_bytes(b"old")
    with short_queue("fanotify"), serving(tmp_path, str(source), *PUSH) as daemon:
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


@pytest.mark.alone
def test_a_part_of_a_directory_is_shown_though_its_event_was_lost(tmp_path: Path) -> None:
    with short_queue("fanotify"), union(tmp_path, 2, *PUSH) as (layers, daemon):
        show_a_part_whose_event_was_lost(layers, daemon)


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
        (source / "file").touch()
        assert "for 1 s: changes are not pushed" in explained(daemon, "file")


# The user has no mark left; a subvolume of btrfs; a process without CAP_SYS_ADMIN.
@requires("cc")
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "push_queue"),
        (errno.EXDEV, "push_filesystem"),
        (errno.EPERM, "push_names_only"),
    ],
)
def test_where_a_filesystem_cannot_be_watched_answers_hold_for_a_time(
    tmp_path: Path, ablation: str, number: int, reason: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    env = {"LD_PRELOAD": ablation, "ZCFUSE_MARK_ERRNO": str(number)}
    with serving(tmp_path, str(source), *PUSH, env=env) as daemon:
        assert daemon.status()["datapath"]["coherence"]["refused"] == {reason: 1}
        assert f"for 1 s: {REASONS[reason].text}" in explained(daemon, "file")


def test_without_the_right_to_watch_a_filesystem_only_names_are_pushed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    under = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    result = subprocess.run(
        [*under, sys.executable, "-c", _REFUSAL, str(source)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (result.stdout.strip(), result.stderr) == ("push_names_only", "")


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
print(path.push_changes(1, False))
path.stop()
"""
