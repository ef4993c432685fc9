"""Programs that walk a whole tree of the mount: git clone, git fsck, rsync -c."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.programs.records import Record, version
from tests.programs.served import FAST, PASSTHROUGH_URING, Served, served_mount
from tests.support import requires

pytestmark = requires("mounting")

FILES: Final = 60
FILE_BYTES: Final = 40_000
# Without user configuration, and with fixed commit times, so that equal commits have equal ids.
GIT: Final = [
    *("env", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_OPTIONAL_LOCKS=0"),
    *("GIT_AUTHOR_DATE=1600000000 +0000", "GIT_COMMITTER_DATE=1600000000 +0000"),
    *("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"),
]

# The checksum of each file, in sorted order.
SUMS: Final = 'cd "$0" && find . -type f -print0 | sort -z | xargs -0 cksum'


def fill(source: str) -> None:
    """A repository of two commits, the first packed, the second in loose objects; and its tree."""
    rng = random.Random("tree")
    repository = f"{source}/repository"
    os.makedirs(f"{repository}/sub/deeper")
    git = [*GIT, "-C", repository]
    run(*git, "init", "-q", "-b", "main")
    for turn, message in enumerate(("packed", "loose")):
        for number in range(turn, FILES, turn + 1):
            directory = ("", "sub/", "sub/deeper/")[number % 3]
            with open(f"{repository}/{directory}file {number}", "wb") as file:
                file.write(rng.randbytes(FILE_BYTES))
        run(*git, "add", "-A")
        run(*git, "commit", "-q", "-m", message)
        if turn == 0:
            run(*git, "repack", "-a", "-d", "-q")


def run(*argv: str) -> str:
    """Run a program that must succeed, and return its output."""
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, (argv, result.stderr)
    return result.stdout


served = served_mount(fill, [*FAST, PASSTHROUGH_URING])


@requires("git")
@pytest.mark.parametrize("how", [(), ("--no-local",)], ids=["copying", "talking"])
def test_git_clones_the_same_history_from_the_mount(
    served: Served, record: Record, tmp_path: Path, how: tuple[str, ...]
) -> None:
    clone = str(tmp_path / "clone")
    with served.proof(delivered=served.size("repository", ".git", "objects")) as proof:
        served.run(*GIT, "clone", "-q", *how, "{}/repository", clone)
    heads = [
        run(*GIT, "-C", at, "log", "--format=%H") for at in (clone, f"{served.source}/repository")
    ]
    assert heads[0] == heads[1]
    assert heads[0].count("\n") == 2
    run("diff", "-r", "--exclude=.git", clone, f"{served.source}/repository")
    record(" ".join(("git clone", *how)), version("git", "--version"), "commits and files", proof)


@requires("git")
def test_git_fsck_finds_the_repository_in_the_mount_sound(served: Served, record: Record) -> None:
    with served.proof(delivered=served.size("repository")) as proof:
        served.same(*GIT, "-C", "{}/repository", "fsck", "--full", "--strict", "--no-progress")
        # Compare the work tree's files, whatever git assumes from sizes and times.
        served.same("sh", "-c", SUMS, "{}/repository")
    record("git fsck", version("git", "--version"), "its output", proof)


@requires("rsync")
def test_rsync_by_checksum_finds_the_one_file_that_differs(
    served: Served, record: Record, tmp_path: Path
) -> None:
    copy = str(tmp_path / "copy")
    run("cp", "-a", served.source, copy)
    with served.proof(delivered=served.size("repository")) as proof:
        assert served.run("rsync", "-aci", "{}/", copy).stdout == b""
    changed = os.path.join(copy, "repository", "sub", "file 1")
    before = os.stat(changed)
    with open(changed, "r+b") as file:
        file.seek(FILE_BYTES // 2)
        file.write(b"another")
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    itemised = served.run("rsync", "-aci", "{}/", copy).stdout.decode()
    assert itemised.split("\n")[0].endswith("repository/sub/file 1")
    assert itemised.count("\n") == 1
    run("diff", "-r", copy, served.source)
    record("rsync -c", version("rsync", "--version"), "what it would transfer", proof)
