"""Times and sizes at the ends of their ranges are shown, and hide no other entry."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support import Mounter, requires

pytestmark = requires("fuse")

# Not all filesystems keep such times; tmpfs does.
KEEPS: Final = "/dev/shm"
LAST: Final = 2**63 - 1


@pytest.fixture
def source() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=KEEPS) as directory:
        for name, seconds in (("last", LAST), ("first", -(2**62)), ("ordinary", 1)):
            subprocess.run(
                ["touch", "-d", f"@{seconds}", os.path.join(directory, name)],
                check=True,
                timeout=20,
            )
        yield directory


@pytest.mark.parametrize("options", [(), ("--no-directory-lease",), ("--path", "naive")])
def test_the_last_and_the_first_second_are_shown_as_they_are(
    mounted: Mounter, source: str, options: tuple[str, ...]
) -> None:
    daemon = mounted(*options, source=source)
    listing = ["ls", "-l", "--time-style=+%s"]
    shown = daemon.run(*listing, daemon.mountpoint).stdout
    native = subprocess.run([*listing, source], check=True, capture_output=True, timeout=20).stdout
    assert shown == native
