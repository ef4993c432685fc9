"""Frozen trees as columns of the benchmark: images that the kernel serves by itself.

`python -m zcfuse.bench._frozen IMAGE MOUNTPOINT` mounts an image by the kernel, waits for SIGTERM
and unmounts, like a FUSE daemon.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse.bench._daemons import child_environment
from zcfuse.bench._sources import SourceError, SourceTree, directory_outside
from zcfuse.bench._targets import Target

_FROZEN: Final = "frozen"
_ZCFUSE: Final = (sys.executable, "-P", "-m", "zcfuse")
_FREEZE_DEADLINE_S: Final = 600.0
_MOUNT_DEADLINE_S: Final = 30.0


@contextlib.contextmanager
def frozen_targets(
    tree: SourceTree, trees: dict[str, Sequence[str]], base: str
) -> Iterator[list[Target]]:
    """Freeze trees, and mount their images below `base` by the kernel.

    Parameters:
        tree: the measured one; the images lie outside of it, and go with the end of the block.
        trees: by what a column is called after "frozen", the arguments of ``zcfuse freeze``.
        base: the directory of the mount points.

    Raises:
        SourceError: a tree cannot be frozen.
    """
    with directory_outside(tree.root) as directory:
        yield [_target(what, given, directory, base) for what, given in trees.items()]


def _target(what: str, given: Sequence[str], directory: str, base: str) -> Target:
    name = f"{_FROZEN} {what}".strip()
    if os.geteuid() != 0:
        return Target(name, missing="only root may mount it without FUSE")
    image = os.path.join(directory, f"{name}.zcf")
    frozen = subprocess.run(
        [*_ZCFUSE, "freeze", *given, image],
        capture_output=True,
        text=True,
        timeout=_FREEZE_DEADLINE_S,
        check=False,
        env=child_environment(),
    )
    if frozen.returncode != 0:
        raise SourceError(f"zcfuse freeze: {frozen.stderr.strip()}")
    mountpoint = os.path.join(base, name)
    return Target(name, (sys.executable, "-P", "-m", __name__, image, mountpoint), mountpoint)


def main() -> int:
    """Mount until SIGTERM; returns the status of the command that mounts or unmounts."""
    _, image, mountpoint = sys.argv
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    mounted = _run("mount", "--engine", "kernel", image, mountpoint)
    if mounted != 0:
        return mounted
    signal.sigwait({signal.SIGTERM})
    return _run("umount", mountpoint)


def _run(*arguments: str) -> int:
    command = [*_ZCFUSE, *arguments]
    return subprocess.run(command, timeout=_MOUNT_DEADLINE_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
