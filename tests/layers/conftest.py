"""Mounts of a stack of layers: zcfuse's, the kernel's overlayfs, fuse-overlayfs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.layers.stacks import NAMES, Stack
from tests.support import Daemon, skip_unless

DEADLINE_S = 60
_DUMP = str(Path(__file__).with_name("dump.py"))

Dump = dict[bytes, Any]


def dump(root: str, names: Sequence[str] = NAMES) -> Dump:
    """Everything that a client sees below `root`; the client is a child with a time-out."""
    command = [sys.executable, "-I", _DUMP, root, *names]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=True)
    found: Dump = ast.literal_eval(done.stdout.decode())
    return found


def run(*command: str, cwd: str | None = None) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, timeout=DEADLINE_S, capture_output=True, cwd=cwd)


@contextmanager
def mounted_by(*command: str, cwd: str | None = None) -> Iterator[str]:
    """Run a program that mounts on its last argument, and unmount after the context."""
    run(*command, cwd=cwd)
    try:
        yield command[-1]
    finally:
        run("umount", "-l", command[-1])


def joined(stack: Stack) -> str:
    """The layers in overlayfs's syntax."""
    return ":".join(stack.layers)


def layer_options(stack: Stack) -> list[str]:
    """The layers in zcfuse's syntax, without the last one."""
    return [word for layer in stack.layers for word in ("--layer", layer)]


LayersMounted = Callable[..., Daemon]


@pytest.fixture
def union(tmp_path: Path) -> Iterator[LayersMounted]:
    """Mounts a stack: ``union(stack, "--path", "pool")``; unmounts cleanly at the end."""
    skip_unless("mounting")
    daemons: list[Daemon] = []

    def mount(stack: Stack, *options: str) -> Daemon:
        number = len(daemons)
        mountpoint = tmp_path / f"union-{number}"
        mountpoint.mkdir()
        log = str(tmp_path / f"union-{number}.log")
        daemons.append(Daemon("", str(mountpoint), *layer_options(stack), *options, log=log))
        return daemons[-1]

    yield mount
    for daemon in reversed(daemons):
        daemon.unmount()
