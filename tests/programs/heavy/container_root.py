"""A root filesystem to chroot into, made once by debootstrap and kept below ``build/``."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

import pytest

from tests.support._capabilities import SKIP_PREFIX
from tests.support._user import CHECKOUT

RELEASE: Final = "bookworm"
_DIRECTORY: Final = os.path.join(CHECKOUT, "build", "proof")
_DEADLINE_S: Final = 600
# In a mount namespace, so that debootstrap's mounts end with it.
_PRIVATELY: Final = (
    *("unshare", "--mount", "--propagation", "private"),
    *("timeout", "--kill-after=5", str(_DEADLINE_S)),
)


def container_root() -> str:
    """The directory; skips the test if the distribution's mirror is unreachable."""
    ready = os.path.join(_DIRECTORY, RELEASE)
    if not os.path.isdir(ready):
        made = f"{ready}.{os.getpid()}"
        try:
            _bootstrap(made)
            os.rename(made, ready)  # an unfinished one has another name
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return ready


def _bootstrap(directory: str) -> None:
    os.makedirs(directory)
    result = subprocess.run(
        [*_PRIVATELY, "debootstrap", "--variant=minbase", RELEASE, directory],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip().splitlines() or ["it said nothing"]
        pytest.skip(f"{SKIP_PREFIX}debootstrap: ended with {result.returncode}: {said[-1]}")
    # The downloaded packages, already installed.
    shutil.rmtree(os.path.join(directory, "var", "cache", "apt", "archives"))
