"""A root filesystem to enter, made once by debootstrap and kept below ``build/``."""

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
# What debootstrap mounts it then mounts for itself, so that nothing is left when it is killed.
_PRIVATELY: Final = (
    *("unshare", "--mount", "--propagation", "private"),
    *("timeout", "--kill-after=5", str(_DEADLINE_S)),
)


def container_root() -> str:
    """The directory; the test is skipped where the distribution's mirror cannot be reached."""
    ready = os.path.join(_DIRECTORY, RELEASE)
    if not os.path.isdir(ready):
        made = f"{ready}.{os.getpid()}"
        try:
            _bootstrap(made)
            os.rename(made, ready)  # one that was not finished does not have the name
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
    # The packages as they came, which are installed now.
    shutil.rmtree(os.path.join(directory, "var", "cache", "apt", "archives"))
