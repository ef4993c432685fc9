"""Changes in the layers of a union, and what clients see of them after a fence."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.coherence.pushed import coherence, sync
from tests.support import DEADLINE_S, Daemon, eventually


def show_what_a_name_between_no_longer_hides(layers: list[Path], daemon: Daemon) -> None:
    """Three layers, of which the middle one hides for a time what the lowest adds."""
    (layers[0] / "x").mkdir()
    (layers[1] / "x").touch()
    (layers[2] / "x").mkdir()
    (layers[2] / "x" / "lowest").touch()
    sync(daemon)
    user = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=daemon.path("x"))
    try:
        assert daemon.run("ls", daemon.path("x")).stdout == b""
        (layers[1] / "x").unlink()
        sync(daemon)
        assert daemon.run("ls", daemon.path("x")).stdout == b"lowest\n"
        (layers[1] / "x").touch()
        sync(daemon)
        assert daemon.run("ls", daemon.path("x")).stdout == b""
    finally:
        user.communicate(timeout=DEADLINE_S)


def hide_a_file_by_an_attribute(layers: list[Path], daemon: Daemon) -> None:
    """A whiteout that gets its mark after it was looked at."""
    for layer in layers[:2]:
        (layer / "x").mkdir()
        (layer / "x" / "file").touch()
    (layers[1] / "x" / "file").write_bytes(b"lower")
    sync(daemon)
    assert daemon.run("cat", daemon.path("x/file")).stdout == b""
    os.setxattr(layers[0] / "x" / "file", "user.overlay.whiteout", b"y")
    sync(daemon)
    daemon.run("test", "!", "-e", daemon.path("x/file"))
    os.removexattr(layers[0] / "x" / "file", "user.overlay.whiteout")
    sync(daemon)
    assert daemon.run("cat", daemon.path("x/file")).stdout == b""


def show_a_part_whose_event_was_lost(layers: list[Path], daemon: Daemon) -> None:
    """A directory that the lower of two layers gets while a short queue is full."""
    (layers[0] / "x").mkdir()
    sync(daemon)
    daemon.run("test", "!", "-e", daemon.path("x/new"))
    # A daemon that runs empties the queue before it is full.
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        for number in range(100):
            (layers[0] / f"more{number}").touch()
        (layers[1] / "x").mkdir()
        (layers[1] / "x" / "new").touch()
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    # A busy machine may lose none; then what follows holds too.
    eventually(lambda: coherence(daemon, "epochs") > 0, 3)
    # Soon, while a directory that the daemon opened before would still be in use.
    daemon.run("sh", "-c", 'test -e "$0" || true', daemon.path("x/new"))
    sync(daemon)
    daemon.run("test", "-e", daemon.path("x/new"))
