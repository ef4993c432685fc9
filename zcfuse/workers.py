"""A mount that several processes of a machine share, such as the workers of a cluster.

The first process mounts, and the last one unmounts. The daemon is a separate process, and outlives
a worker that is killed or restarted. Two files in the user's runtime directory, locked by flock(2),
count the processes. The kernel gives up the locks of a process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final

import msgspec

from zcfuse.admin.status import StatusError, read_status, runtime_directory
from zcfuse.arguments import require_path, require_type
from zcfuse.linux import MountError, mount_at, resolve_mountpoint

# A mount may index an archive, or wait for a server.
_PATIENCE_S: Final = 180.0
_POLL_S: Final = 0.05
_SUMMED: Final = ("hits", "misses", "fetched_bytes", "requests", "retries", "failures")


class SharedMount:
    """A mount that other processes of this machine use too.

    A ``with`` block, or `enter` and `leave`.

    Parameters:
        source: SOURCE of ``zcfuse mount``: a directory, a URL, an archive.
        mountpoint: the directory to mount on; `enter` makes it if it is missing.
        options: further arguments of ``zcfuse mount``, such as ``"--cache-dir=/nvme/zcfuse"``.
    """

    def __init__(self, source: str, mountpoint: str | os.PathLike[str], *options: str) -> None:
        require_type("source", source, str, "a path or a URL")
        require_path("mountpoint", mountpoint)
        for option in options:
            require_type("options", option, str, "texts, as on the command line")
        self.mountpoint = os.path.abspath(os.fspath(mountpoint))
        self._arguments = [source, self.mountpoint, *options]
        self._users: int | None = None

    def enter(self) -> None:
        """Mount, unless another process has, and keep the mount until `leave`.

        If something else has mounted zcfuse there, `enter` uses that mount, and `leave` keeps it.

        Raises:
            MountError: the mount failed, or other processes share it with other arguments.
        """
        assert self._users is None, "it is entered already"
        if mount_at(resolve_mountpoint(self.mountpoint)) is None:  # a look at a mount may hang
            os.makedirs(self.mountpoint, exist_ok=True)
        with self._alone() as users:
            made = _digest_in(users)
            if not self._is_served():
                _run("mount", *self._arguments)
                _write(users, self._digest())
            elif made and made != self._digest():
                raise MountError(
                    f"{self.mountpoint}: other processes share it with another source or other"
                    " options: choose another mount point"
                )
            fcntl.flock(users, fcntl.LOCK_SH)
            self._users = os.dup(users)

    def leave(self) -> None:
        """Give the mount up. The last process that shares it unmounts.

        Clients can still read files that they have open.

        Raises:
            MountError: the unmount failed.
        """
        if self._users is None:
            return
        os.close(self._users)
        self._users = None
        with self._alone() as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if _digest_in(users):
                _write(users, b"")
                if self._is_served():
                    _run("umount", "--lazy", self.mountpoint)

    def figures(self) -> Mapping[str, int]:
        """Return counts of the mount since its start: opens, and those of its servers.

        Raises:
            StatusError: the daemon does not answer.
        """
        document = read_status(self.mountpoint)
        opens = msgspec.convert((document.datapath or {}).get("opens", {}), dict[str, int])
        remotes = msgspec.convert(document.tree.get("remotes", {}), dict[str, dict[str, Any]])
        sums = {name: sum(remote[name] for remote in remotes.values()) for name in _SUMMED}
        return {"daemon": document.pid, "opens": sum(opens.values()), **(sums if remotes else {})}

    def __enter__(self) -> SharedMount:
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()

    def _digest(self) -> bytes:
        # Arguments may hold secrets.
        return hashlib.sha256(msgspec.json.encode(self._arguments)).digest()

    def _is_served(self) -> bool:
        found = mount_at(resolve_mountpoint(self.mountpoint))
        if found is None or not found.is_ours:
            return False
        try:
            read_status(self.mountpoint)
        except StatusError:
            return False  # zcfuse mount replaces a dead zcfuse mount, or says why it refuses
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """Keep other processes from mounting and unmounting; yield the file that counts them."""
        name = hashlib.sha256(os.fsencode(self.mountpoint)).hexdigest()[:32]
        directory = runtime_directory()
        try:
            gate, users = (
                os.open(
                    f"shared-{name}.{ending}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600,
                    dir_fd=directory,
                )
                for ending in ("gate", "users")
            )  # fmt: skip
        finally:
            os.close(directory)
        try:
            _lock(gate, self.mountpoint)
            yield users
        finally:
            os.close(users)
            os.close(gate)


def _lock(gate: int, mountpoint: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise MountError(
                    f"{mountpoint}: another process has been mounting or unmounting it for"
                    f" {_PATIENCE_S:g} s"
                ) from None
            time.sleep(_POLL_S)


def _digest_in(users: int) -> bytes:
    return os.pread(users, hashlib.sha256().digest_size, 0)


def _write(users: int, digest: bytes) -> None:
    os.ftruncate(users, 0)
    os.pwrite(users, digest, 0)


def _run(*arguments: str) -> None:
    command = [sys.executable, "-m", "zcfuse", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise MountError(f"zcfuse {arguments[0]}: no end after {_PATIENCE_S:g} s") from error
    if result.returncode != 0:
        raise MountError(result.stderr.strip().removeprefix("zcfuse: "))
