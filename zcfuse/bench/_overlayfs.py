"""The kernel's overlayfs as a program with a start and an end, like a FUSE daemon.

`python -m zcfuse.bench._overlayfs LAYER[:LAYER...] MOUNTPOINT [UPPER WORK]` mounts, waits for
SIGTERM and unmounts. Without an upper layer it mounts read-only.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_DEADLINE_S: Final = 10.0


def main() -> int:
    """Mount until SIGTERM; returns the status of mount(8) or umount(8)."""
    _, layers, mountpoint, *upper = sys.argv
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    mounted = _mount(layers.split(":"), mountpoint, upper)
    if mounted != 0:
        return mounted
    signal.sigwait({signal.SIGTERM})
    return _run("umount", mountpoint)


def _mount(layers: Sequence[str], mountpoint: str, upper: Sequence[str]) -> int:
    """Mount by names relative to the directory that has the layers.

    mount(8) of util-linux 2.39 and later passes each option to fsconfig(2), which takes 255 bytes.
    """
    above = os.path.commonpath([*layers, *upper])
    lower = ":".join(os.path.relpath(layer, above) for layer in layers)
    options = f"lowerdir={lower}"
    if upper:
        changed, work = (os.path.relpath(directory, above) for directory in upper)
        options += f",upperdir={changed},workdir={work}"
    else:
        options += ",ro"
    return _run("mount", "-t", "overlay", "-o", options, "overlay", mountpoint, directory=above)


def _run(*command: str, directory: str = "/") -> int:
    return subprocess.run(command, timeout=_DEADLINE_S, check=False, cwd=directory).returncode


if __name__ == "__main__":
    sys.exit(main())
