"""A frozen tree that the kernel serves, in the place of a daemon, for the programs of the proof."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from zcfuse.engine import kernel_mount_at

PATH: Final = "frozen"
_DEADLINE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class KernelMount:
    """The mount of an image of `source`: it has what programs need of a daemon."""

    source: str
    mountpoint: str
    user: None = None

    def path(self, *names: str) -> str:
        """The path of a file on the mount."""
        return os.path.join(self.mountpoint, *names)

    def run(
        self, *argv: str, timeout: float, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program that looks at the mount."""
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, check=check)

    def python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run Python code that looks at the mount."""
        return self.run(sys.executable, "-c", code, *arguments, timeout=_DEADLINE_S)


@dataclass(slots=True)
class KernelProof:
    """The record of programs that no process served. `delivered` is as in `proof.Proof`."""

    daemon: KernelMount
    delivered: int

    def numbers(self) -> dict[str, Any]:
        """The proof as plain values, for a record."""
        return {
            "path": PATH,
            "transport": "",
            "delivered": self.delivered,
            "requests": 0,
            "reads": 0,
            "daemon_read_and_wrote": 0,
        }


@contextlib.contextmanager
def kernel_proof_of(mount: KernelMount, delivered: int) -> Iterator[KernelProof]:
    """Require that the kernel serves the mount at the end of the block, by overlayfs or EROFS."""
    proof = KernelProof(mount, delivered)
    yield proof
    assert proof.delivered > 0, "the test does not say how much the program was given"
    served = kernel_mount_at(mount.mountpoint)
    assert served is not None
    assert served.entry.fstype in ("overlay", "erofs")


@contextlib.contextmanager
def frozen_mount(base: Path, source: str, layers: Sequence[str] = ()) -> Iterator[KernelMount]:
    """Freeze `source`, or layers that merge to it, and mount the image below `base`."""
    image, mountpoint = str(base / "image.zcf"), base / "mnt"
    mountpoint.mkdir()
    given = [f"--layer={layer}" for layer in layers] or [source]
    for command in (
        ["freeze", *given, image],
        ["mount", "--engine", "kernel", image, str(mountpoint)],
    ):
        _zcfuse(*command)
    try:
        yield KernelMount(source, str(mountpoint))
    finally:
        _zcfuse("umount", str(mountpoint))


def _zcfuse(*arguments: str) -> None:
    command = [sys.executable, "-m", "zcfuse", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S)
    assert told.returncode == 0, told.stderr
