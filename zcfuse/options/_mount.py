"""The options of a mount: one field of `MountOptions` for each.

This module is pure; `zcfuse.control._checks` compares the options with the machine. Commands import
it before the daemon forks, so it must stay light and start no thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Final

from zcfuse.options._option import Option, RefusedOptionError, option
from zcfuse.options._text import parse_listen, parse_size

SERVING_PATHS: Final = ("auto", "naive", "upcall", "pool", "mmap", "splice", "passthrough")
DEFAULT_CACHE_TIMEOUT_S: Final = 1.0
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
DEFAULT_UNMOUNT_WAIT_S: Final = 5.0
# Well below 120 s: then the data path gives an upcall up, and the client gets EIO.
DEFAULT_ANSWER_TIMEOUT_S: Final = 30.0
# A person starts the program again, or a service manager that waits a moment before it does.
DEFAULT_SURVIVE_WAIT_S: Final = 60.0
DEFAULT_HOT_FILES: Final = 256
_MOST_HOT_FILES: Final = 1 << 20

NO_TIMEOUT_IF_IMMUTABLE: Final = "immutable caches without limit; leave out either of the two"


def _seconds(value: float) -> str:
    return "" if math.isfinite(value) and value >= 0 else "give seconds, 0 or more"


def _some_seconds(value: float) -> str:
    return "" if math.isfinite(value) and value > 0 else "give seconds, more than 0"


def _threads(value: int) -> str:
    if value == 0:
        return ""
    from zcfuse.datapath import MOST_THREADS

    if 0 < value <= MOST_THREADS:
        return ""
    return f"give a number from 1 to {MOST_THREADS}, or 0 to let zcfuse choose"


def _stack_depth(value: int) -> str:
    from zcfuse.datapath import MOST_STACK_DEPTH

    depths = range(1, MOST_STACK_DEPTH + 1)
    return "" if value in depths else f"choose {' or '.join(map(str, depths))}"


def _listen(value: str) -> str:
    try:
        parse_listen(value)
    except ValueError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """How a mount serves its tree.

    The reference lists the parameters in a table, and ``help(MountOptions)`` shows them.

    Raises:
        MountError: a value is outside its range, or options exclude each other.
    """

    path: str = option(
        "auto",
        f"Serving path: {', '.join(SERVING_PATHS)}. auto chooses per file and request.",
        metavar="P",
        choices=SERVING_PATHS,
    )
    transport: str = option(
        "auto",
        "How requests reach the daemon: over /dev/fuse (dev) or io_uring (uring).",
        more="The kernel's switch for io_uring must be on. auto uses io_uring if it is on and the"
        " mount does not serve mostly by splice.",
        metavar="T",
        choices=("auto", "dev", "uring"),
    )
    cache_timeout: float = option(
        DEFAULT_CACHE_TIMEOUT_S,
        "Seconds for which the kernel may cache names and attributes.",
        read=float,
        metavar="S",
        refuse=_seconds,
    )
    coherence: str = option(
        "ttl",
        "How the kernel learns of changes: it asks again after the cache timeout (ttl), or the"
        " daemon pushes each change (push, as root) and the kernel keeps the rest without a limit."
        " Other users' daemons push changes of names alone. With strict, the kernel also keeps no"
        " bytes of a file, and its size only while the file has no writer.",
        more="Push watches whole filesystems (fanotify), so it slows down every writer on them.",
        choices=("ttl", "push", "strict"),
    )
    allow_other: bool = option(False, "Let other users in.", words={"allow_other": True})
    threads: int = option(
        0, "Serving threads.", default_text="chosen", read=int, metavar="N", refuse=_threads
    )
    lock_budget: int | None = option(
        None,
        "Memory that buffers, windows and the files of 'zcfuse warm --lock' may lock, as in 64M.",
        more="Python takes bytes.",
        default_text="up to 64M for buffers and windows, the rest of the limit for files",
        read=parse_size,
        metavar="SIZE",
        refuse=lambda value: "" if value >= 0 else "give a size, 0 or more",
    )
    prefault: bool = option(
        True,
        "Take page faults on use, not in advance.",
        more="True takes those of buffers and windows before their first use.",
        command="--no-prefault",
        words={"no_prefault": False},
    )
    stack_depth: int = option(
        1,
        "2 also passes through files of a stacked filesystem, such as an overlayfs.",
        more="Then the mount cannot be a layer of an overlayfs.",
        read=int,
        metavar="1|2",
        refuse=_stack_depth,
    )
    directory_lease: bool = option(
        True,
        "Answer for names, attributes and opens without asking Python.",
        more="This changes nothing without a data path, or for a tree that grants no lease.",
        default_text="on",
        command="--directory-lease/--no-directory-lease",
        words={"directory_lease": True, "no_directory_lease": False},
    )
    rw: bool = option(
        False,
        "Let clients change SOURCE, a directory.",
        more="New files belong to the client that makes them. This needs the data path and"
        " directory_lease, so not naive or upcall, and excludes immutable.",
        default_text="read-only",
        # mount(8) writes rw even if the user did not ask for it, so its helper has `writable`.
        words={"ro": False, "rw": True, "writable": True},
        command="--rw",
    )
    immutable: bool = option(
        False,
        "Promise that SOURCE does not change while it is mounted. After the first look, listing,"
        " open or read, the kernel then answers from its caches.",
        more="Whatever cache_timeout says, the kernel may keep every answer, and sends no opens."
        " Implies directory_lease. Not for naive and passthrough.",
        words={"immutable": True},
    )
    survive: bool = option(
        False,
        "Keep the mount over a crash of its daemon and over upgrades: clients only wait.",
        more="A second process, the holder, starts a successor. For a program, it waits for the"
        " next one that calls zcfuse.attach(). Requests travel over /dev/fuse."
        " Not for transport=uring, and the paths naive and upcall. With rw, only for a command's"
        " mount of one directory, or of a union with --upper.",
        words={"survive": True},
    )
    survive_wait: float = option(
        DEFAULT_SURVIVE_WAIT_S,
        "How long the mount of a program with survive waits for the next program, in seconds. Then"
        " it ends, and clients get ENOTCONN.",
        refuse=_some_seconds,
        command="",
        in_text=False,
    )
    noexec: bool = option(
        False,
        "The kernel runs no program from the mount; exec is the opposite.",
        command="",
        words={"noexec": True, "exec": False},
    )
    metrics_listen: str | None = option(
        None,
        "Answer a Prometheus scraper on this port of the loopback interface. Port 0 takes any"
        " free port; 'zcfuse status' shows it.",
        metavar="[ADDR:]PORT",
        refuse=_listen,
    )
    source_name: str | None = option(
        None,
        "The source that findmnt shows; None is the tree's name.",
        command="",
        in_text=False,
    )
    unmount_wait: float = option(
        DEFAULT_UNMOUNT_WAIT_S,
        "How long to wait for a busy mount before detaching it by force, in seconds.",
        refuse=_seconds,
        command="",
        in_text=False,
    )
    answer_timeout: float = option(
        DEFAULT_ANSWER_TIMEOUT_S,
        "How long an async function of the tree (for a dynamic directory or a Computed file) may"
        " take, in seconds. Then it is cancelled, and its client gets ETIMEDOUT.",
        refuse=_some_seconds,
        command="",
        in_text=False,
    )
    hot_files: int = option(
        DEFAULT_HOT_FILES,
        "How many closed files each serving thread counts by name, for 'zcfuse top' and the"
        " status.",
        more="It counts every file while it is open. A file takes 48 bytes.",
        read=int,
        metavar="N",
        refuse=lambda value: (
            "" if 0 < value <= _MOST_HOT_FILES else f"give a number from 1 to {_MOST_HOT_FILES}"
        ),
        command="",
    )

    def __post_init__(self) -> None:
        for one in MOUNT_OPTIONS:
            if remedy := one.refusal(value := getattr(self, one.name)):
                raise RefusedOptionError(one.name, value, remedy)
        if self.transport == "uring" and self.path == "naive":
            raise RefusedOptionError(
                "transport", self.transport, "path naive has no data plane; choose another path"
            )
        if self.pushes and not self.directory_lease:
            raise RefusedOptionError(
                "directory_lease", False, f"{self.coherence} needs the lease; leave this option out"
            )
        if self.pushes and (self.immutable or self.path in ("naive", "upcall")):
            why = "an immutable tree has no changes" if self.immutable else "it needs a data path"
            raise RefusedOptionError("coherence", self.coherence, f"{why}; leave coherence out")
        if self.survive:
            self._check_survive()
        if self.immutable:
            self._check_immutable()
        if self.rw:
            self._check_rw()

    def _check_immutable(self) -> None:
        if self.path in _NOT_IMMUTABLE:
            why = f"{_NOT_IMMUTABLE[self.path]}; leave immutable out, or choose another path"
            raise RefusedOptionError("path", self.path, why)
        if self.cache_timeout != DEFAULT_CACHE_TIMEOUT_S:
            raise RefusedOptionError("cache_timeout", self.cache_timeout, NO_TIMEOUT_IF_IMMUTABLE)

    def _check_rw(self) -> None:
        if self.path in _NOT_WRITABLE:
            raise RefusedOptionError(
                "path", self.path, "rw needs the data path; choose another path"
            )
        if self.immutable:
            raise RefusedOptionError(
                "immutable", True, "rw changes the tree; leave out either of the two"
            )
        if not self.directory_lease:
            raise RefusedOptionError(
                "directory_lease", False, "rw needs the lease; leave this option out"
            )
        if self.pushes:
            raise RefusedOptionError(
                "coherence", self.coherence, "with rw the kernel sees all changes; leave it out"
            )

    def _check_survive(self) -> None:
        if self.transport == "uring":
            raise RefusedOptionError(
                "survive", True, "a ring dies with its daemon; leave transport out"
            )
        if self.path in ("naive", "upcall"):
            raise RefusedOptionError(
                "path", self.path, "survive needs the data path; choose another path"
            )

    @property
    def pushes(self) -> bool:
        """Whether the daemon pushes changes to the kernel."""
        return self.coherence != "ttl"

    @property
    def effective_cache_timeout(self) -> float:
        """For how long the kernel may rely on answers, in seconds."""
        return UNLIMITED_CACHE_TIMEOUT_S if self.immutable else self.cache_timeout


MOUNT_OPTIONS: Final[tuple[Option, ...]] = tuple(
    replace(one.metadata["option"], name=one.name) for one in fields(MountOptions)
)

MountOptions.__doc__ = "\n".join(
    (
        MountOptions.__doc__ or "",
        "    Parameters:",
        *(f"        {one.name}: {one.help} {one.more}".rstrip() for one in MOUNT_OPTIONS),
    )
)
