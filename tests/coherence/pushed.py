"""Helpers for the tests of pushes: mounting, the fence, and the daemon's counts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.integration.conftest import serving
from tests.support import DEADLINE_S, Daemon

PUSH: Final = ("--coherence", "push")
STRICT: Final = ("--coherence", "strict")
# The preloaded library of ablation.c sees requests on /dev/fuse only.
CACHED: Final = ("--path", "pool", "--transport", "dev")
ROUNDS: Final = int(os.environ.get("ZCFUSE_COHERENCE_ROUNDS", "75"))


def coherence(daemon: Daemon, name: str) -> int:
    """Return one of the daemon's counts."""
    return int(daemon.status()["datapath"]["coherence"][name])


def sync(daemon: Daemon) -> None:
    """Wait until the mount shows every change made so far."""
    daemon.run(sys.executable, "-m", "zcfuse", "sync", daemon.mountpoint)


def stress(daemon: Daemon, *sources: str, rounds: int = ROUNDS) -> str:
    """Run the stress program; what it prints is what it found stale."""
    argv = [sys.executable, "-m", "tests.coherence.stress", str(rounds), "1", daemon.mountpoint]
    timeout = 30 + 3 * ROUNDS  # a busy machine takes several times as long
    result = subprocess.run([*argv, *sources], capture_output=True, text=True, timeout=timeout)
    return (result.stdout + result.stderr).strip()


@contextlib.contextmanager
def union(
    base: Path, layers: int, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[list[Path], Daemon]]:
    """A mount of empty directories merged, the first on top."""
    directories = [base / f"layer{number}" for number in range(layers)]
    for directory in directories:
        directory.mkdir()
    arguments = [text for directory in directories for text in ("--layer", str(directory))]
    with serving(base, "", *arguments, *options, env=env) as daemon:
        yield directories, daemon


@contextlib.contextmanager
def short_queue(kind: str) -> Iterator[None]:
    """Have a daemon that starts here lose events ("fanotify", "inotify") that it reads late."""
    limit = Path(f"/proc/sys/fs/{kind}/max_queued_events")
    before = limit.read_text()
    limit.write_text("16")
    try:
        yield
    finally:
        limit.write_text(before)


@contextlib.contextmanager
def opened_by_client(path: str) -> Iterator[None]:
    """A client that has a file open."""
    argv = ["sh", "-c", 'exec 3<"$0"; echo; exec cat', path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        try:
            assert client.stdout.readline() == b"\n"
            yield
        finally:
            client.stdin.close()
            assert client.wait(DEADLINE_S) == 0
