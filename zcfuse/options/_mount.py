"""The options of a mount: `MountOptions`, and their form as text.

This module is pure; `zcfuse.control._checks` compares the options with the machine. Commands import
it before the daemon forks, so it must stay light and start no thread.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from zcfuse.linux import MountError

SERVING_PATHS: Final = ("auto", "naive", "upcall", "pool", "mmap", "splice", "passthrough")
DEFAULT_PATH: Final = "auto"
TRANSPORTS: Final = ("auto", "dev", "uring")
DEFAULT_TRANSPORT: Final = "auto"
DEFAULT_CACHE_TIMEOUT_S: Final = 1.0
COHERENCES: Final = ("ttl", "push")
DEFAULT_COHERENCE: Final = "ttl"
# 136 years, as in the data path: the kernel may believe an answer for as long as it likes.
UNLIMITED_CACHE_TIMEOUT_S: Final = float(2**32 - 1)
# Paths that need a message from the kernel for each open, and why.
_NOT_IMMUTABLE: Final = {
    "naive": "path naive needs a message for each open",
    "passthrough": "passthrough needs a message for each open",
}
# On these paths Python answers, and it cannot change a tree.
_NOT_WRITABLE: Final = frozenset({"naive", "upcall"})
# Bytes that pool and windows may lock if the limit permits: a few dozen of the largest replies.
DEFAULT_LOCK_BUDGET: Final = 64 << 20
# struct fuse_init_out (Linux 6.9): FUSE may stand on at most one stacked filesystem.
STACK_DEPTHS: Final = (1, 2)
DEFAULT_UNMOUNT_WAIT_S: Final = 5.0
# Well below 120 s: then the data path gives an upcall up, and the client gets EIO.
DEFAULT_ANSWER_TIMEOUT_S: Final = 30.0
DEFAULT_HOT_FILES: Final = 256
_MOST_HOT_FILES: Final = 1 << 20

NO_TIMEOUT_IF_IMMUTABLE: Final = "immutable caches without limit; leave out either of the two"

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_OPTION: Final = re.compile(r'(?:[^",]|"[^"]*"|")+')
_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "::1"}
_LAST_PORT: Final = 65535
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
# mount(8) may pass these options; they hold for every zcfuse mount anyway.
_ALWAYS_ON: Final = frozenset({"nosuid", "nodev", "default_permissions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """How a mount serves its tree.

    Parameters:
        path: serving path: ``passthrough``, ``splice``, ``mmap``, ``pool``, ``upcall`` or
            ``naive``; ``auto`` chooses per file and request.
        transport: how requests reach the daemon: ``dev`` over /dev/fuse,
            ``uring`` over io_uring, which must be switched on in the kernel; ``auto`` uses io_uring
            if it is on and the mount does not serve mostly by splice.
        cache_timeout: for how long the kernel may rely on names and attributes, in seconds (1.0).
        coherence: how the kernel learns of changes of the backing tree. ``ttl``: the kernel asks
            again after `cache_timeout`. ``push``: the daemon pushes each change, and the kernel
            keeps the rest without a limit. Push watches whole filesystems (fanotify), so it needs
            CAP_SYS_ADMIN and slows down every writer on them.
        allow_other: let other users than the caller in.
        threads: serving threads of the data path; 0 lets it choose.
        lock_budget: bytes that buffers, windows and the files of ``zcfuse warm --lock`` may lock
            into memory together. None allows up to 64 MiB of the limit for buffers and windows,
            and the rest of the limit for the files.
        prefault: take the page faults of buffers and windows before their first use.
        stack_depth: 2 also passes through files of a stacked filesystem (overlayfs); then this
            mount cannot be a layer of an overlayfs.
        directory_lease: let the data path answer for names, attributes and opens of a mirrored
            directory without asking Python. This changes nothing without a data path, or for a
            tree that grants no lease.
        rw: let clients change the tree, which must be a Mirror; new files belong to the client that
            makes them. This needs the data path and `directory_lease`, so not ``naive`` or
            ``upcall``, and excludes `immutable`.
        immutable: the caller's promise that the backing tree does not change while it is mounted.
            The kernel may then keep every answer, whatever `cache_timeout` says, and sends no
            opens. Implies `directory_lease`. Not for ``naive`` and ``passthrough``.
        noexec: the kernel runs no program from the mount.
        source_name: the source that findmnt shows; None: the tree's own name.
        unmount_wait: how long to wait for a busy mount before detaching it by force, in seconds
            (5.0).
        metrics_listen: the address that answers a scraper of metrics over HTTP, ``PORT`` or
            ``127.0.0.1:PORT``, on loopback only. Port 0 takes any free port; the status shows it.
            None: no address.
        answer_timeout: how long an async function of the tree (for a dynamic directory or a
            Computed file) may take, in seconds (30.0). Then it is cancelled, and its client gets
            ETIMEDOUT.
        hot_files: how many files each serving thread counts by name (256), for ``zcfuse top`` and
            the status. Give the number of open files to count all of them; each takes 48 bytes.

    Raises:
        MountError: a value is outside its range.
    """

    path: str = DEFAULT_PATH
    transport: str = DEFAULT_TRANSPORT
    cache_timeout: float = DEFAULT_CACHE_TIMEOUT_S
    coherence: str = DEFAULT_COHERENCE
    allow_other: bool = False
    threads: int = 0
    lock_budget: int | None = None
    prefault: bool = True
    stack_depth: int = 1
    directory_lease: bool = True
    rw: bool = False
    immutable: bool = False
    noexec: bool = False
    source_name: str | None = None
    unmount_wait: float = DEFAULT_UNMOUNT_WAIT_S
    metrics_listen: str | None = None
    answer_timeout: float = DEFAULT_ANSWER_TIMEOUT_S
    hot_files: int = DEFAULT_HOT_FILES

    def __post_init__(self) -> None:
        if self.path not in SERVING_PATHS:
            raise _refused("path", self.path, f"choose one of {', '.join(SERVING_PATHS)}")
        if self.transport not in TRANSPORTS:
            raise _refused("transport", self.transport, f"choose one of {', '.join(TRANSPORTS)}")
        if self.transport == "uring" and self.path == "naive":
            raise _refused(
                "transport", self.transport, "path naive has no data plane; choose another path"
            )
        if not (math.isfinite(self.cache_timeout) and self.cache_timeout >= 0):
            raise _refused("cache_timeout", self.cache_timeout, "give seconds, 0 or more")
        if self.coherence not in COHERENCES:
            raise _refused("coherence", self.coherence, f"choose one of {', '.join(COHERENCES)}")
        if self.coherence == "push" and (self.immutable or self.path in ("naive", "upcall")):
            why = "an immutable tree has no changes" if self.immutable else "it needs a data path"
            raise _refused("coherence", self.coherence, f"{why}; leave coherence out")
        if self.immutable:
            self._check_immutable()
        if self.rw:
            self._check_rw()
        if self.threads != 0:
            self._check_threads()
        if self.lock_budget is not None and self.lock_budget < 0:
            raise _refused("lock_budget", self.lock_budget, "give a size, 0 or more")
        if self.stack_depth not in STACK_DEPTHS:
            raise _refused("stack_depth", self.stack_depth, "choose 1 or 2")
        if not (math.isfinite(self.unmount_wait) and self.unmount_wait >= 0):
            raise _refused("unmount_wait", self.unmount_wait, "give seconds, 0 or more")
        if self.metrics_listen is not None:
            try:
                parse_listen(self.metrics_listen)
            except ValueError as error:
                raise _refused("metrics_listen", self.metrics_listen, str(error)) from error
        if not (math.isfinite(self.answer_timeout) and self.answer_timeout > 0):
            raise _refused("answer_timeout", self.answer_timeout, "give seconds, more than 0")
        if not 0 < self.hot_files <= _MOST_HOT_FILES:
            remedy = f"give a number from 1 to {_MOST_HOT_FILES}"
            raise _refused("hot_files", self.hot_files, remedy)

    def _check_threads(self) -> None:
        # The native module takes a while to load, and few mounts set their threads.
        from zcfuse.datapath import MOST_THREADS

        if not 0 < self.threads <= MOST_THREADS:
            remedy = f"give a number from 1 to {MOST_THREADS}, or 0 to let zcfuse choose"
            raise _refused("threads", self.threads, remedy)

    def _check_immutable(self) -> None:
        if self.path in _NOT_IMMUTABLE:
            why = f"{_NOT_IMMUTABLE[self.path]}; leave immutable out, or choose another path"
            raise _refused("path", self.path, why)
        if self.cache_timeout != DEFAULT_CACHE_TIMEOUT_S:
            raise _refused("cache_timeout", self.cache_timeout, NO_TIMEOUT_IF_IMMUTABLE)

    def _check_rw(self) -> None:
        if self.path in _NOT_WRITABLE:
            raise _refused("path", self.path, "rw needs the data path; choose another path")
        if self.immutable:
            raise _refused("immutable", True, "rw changes the tree; leave out either of the two")
        if not self.directory_lease:
            raise _refused("directory_lease", False, "rw needs the lease; leave this option out")
        if self.coherence == "push":
            raise _refused("coherence", "push", "rw tells the kernel itself; leave coherence out")

    @property
    def effective_cache_timeout(self) -> float:
        """For how long the kernel may rely on answers, in seconds."""
        return UNLIMITED_CACHE_TIMEOUT_S if self.immutable else self.cache_timeout


def _refused(name: str, value: object, remedy: str) -> MountError:
    return MountError(f"{name}={value}: {remedy}", usage=True)


def parse_size(text: str) -> int:
    """Read a size in bytes: ``65536``, ``64K``, ``64M``, ``1.5GiB``; units are powers of 1024.

    Raises:
        ValueError: the text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: write bytes, or a number with K, M, G or T, as in 64M"
        )
    number, unit = match.groups()
    return (
        int(float(number) * (1 << _UNITS[unit.upper()]))
        if "." in number
        else int(number) << _UNITS[unit.upper()]
    )


def split_options(text: str) -> list[str]:
    """Split the text of ``-o`` at commas outside of double quotes, and drop the quotes.

    mount(8) reads it in the same way: ``ro,layer="/a,b"``.
    """
    options = (part.replace('"', "").strip() for part in _OPTION.findall(text))
    return [option for option in options if option]


def parse_listen(text: str) -> tuple[str, int]:
    """Read an address: ``PORT``, ``127.0.0.1:PORT``, ``localhost:PORT`` or ``[::1]:PORT``.

    Returns:
        The loopback address and the port.

    Raises:
        ValueError: the text is not an address of the loopback interface.
    """
    host, colon, port = text.rpartition(":")
    address = _LOOPBACK.get(host if colon else "127.0.0.1")
    if address is None:
        raise ValueError("not a loopback address; give PORT, 127.0.0.1:PORT or [::1]:PORT")
    if not (port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise ValueError(f"give a port from 1 to {_LAST_PORT}, or 0 for one that is free")
    return address, int(port)


def parse_mount_options(text: str, others: Collection[str] = ()) -> dict[str, object]:
    """Read the text of ``-o``: options separated by commas, each ``name`` or ``name=value``.

    Parameters:
        text: the options.
        others: more names that the caller knows, as suggestions for an unknown name.

    Returns:
        Keyword arguments for `MountOptions`, only the given ones. If a name repeats, the last wins.

    Raises:
        MountError: an option is unknown, lacks its value or is refused.
    """
    values: dict[str, object] = {}
    for option in split_options(text):
        values.update(_parse_option(option, others))
    return values


def _parse_option(option: str, others: Collection[str]) -> Mapping[str, object]:
    name, equals, value = option.partition("=")
    if not equals and name in _FLAGS:
        return _FLAGS[name]
    if name not in _VALUES:
        raise MountError(f"-o {option}: {_unknown(name, bool(equals), others)}", usage=True)
    if not value:
        raise MountError(f"-o {option}: needs a value: -o {name}=...", usage=True)
    try:
        return {name: _VALUES[name](value)}
    except ValueError as error:
        reason = str(error) if _VALUES[name] is parse_size else f"{value!r} is not a number"
        raise MountError(f"-o {option}: {reason}", usage=True) from error


def known_options() -> list[str]:
    """Return the names that `parse_mount_options` knows, with ``=`` where a value follows."""
    return [*_FLAGS, *(f"{name}=" for name in _VALUES)]


def _unknown(name: str, has_value: bool, others: Collection[str]) -> str:
    if has_value and name in _FLAGS:
        return f"takes no value: -o {name}"
    known = sorted([*known_options(), *others])
    close = difflib.get_close_matches(name, [option.rstrip("=") for option in known], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown option; {hint}known are {', '.join(known)}"


_FLAGS: Final[Mapping[str, Mapping[str, object]]] = {
    **{name: {} for name in _ALWAYS_ON},
    "ro": {"rw": False},
    "rw": {"rw": True},
    "writable": {"rw": True},  # because mount(8) writes rw even if the user did not ask for it
    "allow_other": {"allow_other": True},
    "no_prefault": {"prefault": False},
    "directory_lease": {"directory_lease": True},
    "no_directory_lease": {"directory_lease": False},
    "immutable": {"immutable": True},
    "noexec": {"noexec": True},
    "exec": {"noexec": False},
}
_VALUES: Final[Mapping[str, Callable[[str], object]]] = {
    "path": str,
    "transport": str,
    "cache_timeout": float,
    "coherence": str,
    "threads": int,
    "lock_budget": parse_size,
    "stack_depth": int,
    "hot_files": int,
    "metrics_listen": str,
}
