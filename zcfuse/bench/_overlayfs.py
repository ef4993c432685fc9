"""The kernel's overlayfs as a program that can be started and told to end, as FUSE's daemons are.

`python -m zcfuse.bench._overlayfs LAYER[:LAYER...] MOUNTPOINT` mounts read-only, waits for SIGTERM
and unmounts.
"""

import signal
import subprocess
import sys
from typing import Final

_DEADLINE_S: Final = 10.0


def main() -> int:
    """Mount until told to end; returns the status of mount(8) or umount(8)."""
    _, layers, mountpoint = sys.argv
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    options = f"ro,lowerdir={layers}"
    mounted = _run("mount", "-t", "overlay", "-o", options, "overlay", mountpoint)
    if mounted != 0:
        return mounted
    signal.sigwait({signal.SIGTERM})
    return _run("umount", mountpoint)


def _run(*command: str) -> int:
    return subprocess.run(command, timeout=_DEADLINE_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
