"""Mounts that the kernel serves, taken away at the end whatever happened."""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.frozen.conftest import frozen
from tests.layers.dump import dump
from tests.support import skip_unless
from zcfuse.engine import mount_image
from zcfuse.linux import mount_at, resolve_mountpoint

__all__ = ["by_kernel", "frozen", "seen_at"]

_NOT_KEPT = ("ino", "blocks", "times")


@pytest.fixture
def by_kernel(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Mounts an image by the kernel: ``by_kernel(image)`` returns where."""
    skip_unless("root", "erofs")
    places: list[str] = []
    numbers = itertools.count()

    def mount(image: str) -> str:
        place = str(tmp_path / f"kernel-{next(numbers)}")
        os.mkdir(place)
        mount_image(image, place)
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], timeout=20, check=True)


def seen_at(mountpoint: str) -> dict[bytes, dict[str, object]]:
    """Everything that a mount shows and an image keeps."""
    found = dump(os.fsencode(mountpoint), [b"missing"])
    for described in found.values():
        if isinstance(described, dict):
            described["mtime"] = described["times"][0]
            for name in _NOT_KEPT:
                described.pop(name)
    return found


@pytest.fixture
def place(mountpoint: str) -> Iterator[str]:
    """A mount point; a mount of the kernel's that a test leaves there is taken away."""
    yield mountpoint
    # os.path.ismount() does not see a bind mount within one filesystem.
    while mount_at(resolve_mountpoint(mountpoint)) is not None:
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(["umount", "--lazy", mountpoint], timeout=20, check=True)
