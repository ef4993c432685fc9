"""The command line as users run it: a separate process, with a time-out."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.support import OrdinaryUser, eventually, find_mount
from tests.support._forked import run_forked
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

DEADLINE_S: Final = 40.0
# Until a process that got a signal to end is gone.
END_S: Final = 15.0

# The console scripts of pyproject.toml.
COMMANDS: Final = {"zcfuse": "zcfuse.cli", "mount.fuse.zcfuse": "zcfuse.cli.mount.helper"}

Run = Callable[..., subprocess.CompletedProcess[str]]


def without_progress(stderr: str) -> str:
    """Return what a command says beside the lines that it writes when its steps take long."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if " steps are done." not in line)


def run_zcfuse(
    *arguments: str,
    user: OrdinaryUser | None = None,
    wrap: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = DEADLINE_S,
) -> subprocess.CompletedProcess[str]:
    """Run ``zcfuse`` to its end, as `user`, under the command `wrap`."""
    environment = {**os.environ, "PYTHONPATH": CHECKOUT, "NO_COLOR": "1", **(env or {})}
    if user is None and not wrap and env is None:
        return run_forked(arguments, environment=environment, directory=CHECKOUT, timeout=timeout)
    argv = [*wrap, sys.executable, "-m", "zcfuse", *arguments]
    return subprocess.run(
        user.command(argv) if user else argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        cwd=CHECKOUT,
        env=environment,
        check=False,
    )


@pytest.fixture
def zcfuse(mountpoint: str) -> Iterator[Run]:
    """Runs ``zcfuse ARGUMENTS``; whatever it leaves on `mountpoint` is taken away at the end.

    The daemon may be that of another fixture, which still requires an end without an error. So its
    connection is not aborted.
    """
    yield run_zcfuse
    while find_mount(mountpoint) is not None:
        detach(mountpoint, force=False)


@pytest.fixture
def commands(tmp_path: Path) -> str:
    """A directory with the commands as pip installs them, which run the code of this checkout."""
    directory = tmp_path / "commands"
    directory.mkdir()
    for name, module in COMMANDS.items():
        code = f"import sys; from {module} import main; sys.argv[0] = sys.argv.pop(1); main()"
        script = directory / name
        line = f"PYTHONPATH='{CHECKOUT}' exec '{sys.executable}' -c '{code}'"
        script.write_text(f'#!/bin/sh\n{line} "$0" "$@"\n')
        script.chmod(0o755)
    return str(directory)


def refused(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Require a refusal: this exit status, nothing on standard output, one line with `words`."""
    assert (result.returncode, result.stdout) == (status, ""), result
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def ended(pid: int, seconds: float = END_S) -> bool:
    """Whether a process, not necessarily a child, ends within this many seconds."""
    return eventually(lambda: _state(pid) in ("", "Z"), seconds)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@contextlib.contextmanager
def busy(mountpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose working directory is the mount, which keeps the mount busy."""
    child = subprocess.Popen(
        ["sh", "-c", 'cd "$0" && echo in && exec sleep 60', mountpoint],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in\n"
        yield child
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=END_S)
