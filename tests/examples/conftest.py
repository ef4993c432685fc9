"""Runs an example as a user would: as a separate program."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support import abort, eventually, find_mount, skip_unless
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

DEADLINE_S = 60.0


class Programs:
    """Running examples; they and their mounts end with the test."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._running: list[subprocess.Popen[str]] = []

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start ``examples/NAME``."""
        path = os.path.join(CHECKOUT, "examples", name)
        process = subprocess.Popen(
            [sys.executable, path, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": CHECKOUT, "PYTHONFAULTHANDLER": "1"},
        )
        self._running.append(process)
        return process

    def run(self, name: str, *arguments: str) -> str:
        """Run ``examples/NAME``, which must succeed, and return its output."""
        process = self.start(name, *arguments)
        output, errors = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, errors
        return output

    def wait_until_mounted(self, process: subprocess.Popen[str]) -> None:
        """Wait until the example has mounted."""

        def is_mounted() -> bool:
            assert process.poll() is None, process.communicate(timeout=DEADLINE_S)[1]
            return find_mount(self._mountpoint) is not None

        assert eventually(is_mounted, DEADLINE_S), "no mount"

    def close(self) -> None:
        """End the remaining examples."""
        mount = find_mount(self._mountpoint)
        if mount is not None:
            abort(mount)
            detach(self._mountpoint)
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=DEADLINE_S)


@pytest.fixture
def programs(mountpoint: str) -> Iterator[Programs]:
    """Starts examples."""
    skip_unless("mounting")
    running = Programs(mountpoint)
    yield running
    running.close()
