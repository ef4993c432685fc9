"""A mount namespace with the mount helper in /sbin and a separate fstab.

The machine's /sbin and fstab stay unchanged.
"""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from tests.cli.conftest import COMMANDS, DEADLINE_S, END_S
from tests.support._kernel import find_mount
from tests.support._user import CHECKOUT

HELPER: Final = "mount.fuse.zcfuse"
# $1: a scratch directory, $2: a command to add to /sbin, $3: its code.
_PREPARE: Final = """
set -eu
scratch=$1 sbin=$(realpath /sbin)
mkdir "$scratch/sbin"
mount --bind "$sbin" "$scratch/sbin"
mount -t tmpfs -o mode=755 zcfuse-tests "$sbin"
mkdir "$sbin/.kept"
mount --bind "$scratch/sbin" "$sbin/.kept"
for name in "$sbin/.kept"/*; do ln -s "$name" "$sbin/"; done
rm -f "$sbin/mount.fuse.zcfuse"
printf '%s\\n' '#!/bin/sh' "$3" >"$sbin/$2"
chmod 755 "$sbin/$2"
touch "$scratch/fstab"
chmod 644 "$scratch/fstab"
mount --bind "$scratch/fstab" /etc/fstab
"""


def _line(command: str) -> str:
    """The line of a shell script that runs this command of this checkout."""
    code = f"from {COMMANDS[command]} import main; main()"
    path = shlex.quote(CHECKOUT)
    return f"PYTHONPATH={path} exec {shlex.quote(sys.executable)} -c '{code}' \"$@\""


class Sbin:
    """Runs mount, umount and other commands in a namespace that a process holds."""

    def __init__(self, holder: int, scratch: str, command: str = HELPER) -> None:
        self.holder = holder
        self._fstab = os.path.join(scratch, "fstab")
        prepared = self.run("sh", "-c", _PREPARE, "sh", scratch, command, _line(command))
        assert prepared.returncode == 0, prepared.stderr

    def fstab(self, *lines: str) -> str:
        """Write /etc/fstab and return its path for ``mount -T``."""
        with open(self._fstab, "w") as file:
            file.writelines(f"{line}\n" for line in lines)
        return self._fstab

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the namespace."""
        return subprocess.run(
            ["nsenter", f"--mount=/proc/{self.holder}/ns/mnt", f"--wdns={os.getcwd()}", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, **env},
        )

    def mounted(self, mountpoint: str):
        """The FUSE mount, or None."""
        return find_mount(mountpoint, self.holder)

    def unmount(self, *mountpoints: str) -> None:
        """Unmount everything from these mount points."""
        for mountpoint in mountpoints:
            while self.mounted(mountpoint) is not None:
                assert self.run("umount", "-l", mountpoint).returncode == 0


@contextlib.contextmanager
def namespace_with(scratch: str, command: str = HELPER) -> Iterator[Sbin]:
    """A new namespace during the context; see `Sbin`."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo in; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        yield Sbin(holder.pid, scratch, command)
    finally:
        holder.communicate(timeout=END_S)
