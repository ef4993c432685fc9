"""The document that explains how a file is served and why not better, and its advice.

All functions are pure. `zcfuse.admin.explain._inquiry` finds the facts; the command prints them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec


class BackingPart(msgspec.Struct, frozen=True):
    """A run of bytes of a real file. `path` is as the daemon sees it; "" stands for a hole.

    `length` is None for a run to the end of the file. `stacked`: the filesystem lies on others.
    `cached_bytes` of the run are in the backing file's page cache; None if the kernel hides that
    from the daemon.
    """

    path: str
    offset: int
    length: int | None
    filesystem: str
    stacked: bool
    cached_bytes: int | None


class Step(msgspec.Struct, frozen=True):
    """A serving path: the reads that use it ("" for none), and why not more."""

    path: str
    used: str
    reason: str


class Names(msgspec.Struct, frozen=True):
    """Says whether the data path or Python answers for names, attributes and opens, and why.

    `timeout_s` is how long the kernel may believe the answer, in seconds; None: without limit.
    """

    leased: bool
    reason: str
    timeout_s: float | None


class Served(msgspec.Struct, frozen=True):
    """How reads of the file travel.

    `mode`: passthrough, cached, upcall or naive. It is "" for a file that is not regular or does
    not open; then `reason` has the error. `open_as`: how programs that have it open now are served;
    "" without any. `forced`: the path that the mount or the entry demands, or "". `locked_bytes` of
    the file are locked in memory.
    """

    mode: str
    reason: str
    open_as: str
    forced: str
    steps: list[Step]
    locked_bytes: int


class Explanation(msgspec.Struct, frozen=True, tag="explained"):
    """The daemon's knowledge of how one file is served. `parts` are the first of `parts_in_all`.

    `fallbacks` counts those of the whole mount since its start, by reason.
    """

    pid: int
    source: str
    mountpoint: str
    options: dict[str, object]
    node: str
    volatile: bool
    names: Names
    parts: list[BackingPart]
    parts_in_all: int
    kernel: dict[str, object]
    transport: str
    transport_reason: str
    served: Served
    fallbacks: dict[str, int]


GOOD: Final = "as good as it gets"

_NO_PRIVILEGE: Final = (
    "mount as root (CAP_SYS_ADMIN): the kernel then reads the backing file itself (passthrough)"
)
_STACKED: Final = (
    "mount with --stack-depth 2: the kernel then reads the file itself, but the mount cannot be a"
    " layer of an overlayfs"
)
_STACKED_TWICE: Final = (
    "keep the data on a filesystem that lies on fewer others, such as a volume of the container:"
    " the kernel takes no deeper stack"
)
_TOO_OLD: Final = (
    "boot Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH: the kernel then reads the file itself"
)
_PARTS: Final = (
    f"{GOOD} for a file that is a part of others: the kernel passes only whole files (File, Mirror)"
    " through"
)
_IMMUTABLE: Final = (
    f"{GOOD} for small files and for repeated reads; one read of a huge file is quicker by"
    " passthrough, without --immutable"
)

# Advice by the beginning of a reason; the first match wins.
_REMEDIES: Final[tuple[tuple[str, str], ...]] = (
    ("passthrough: EPERM", _NO_PRIVILEGE),
    ("passthrough: ELOOP", _STACKED),
    ("passthrough: ENOSYS", _TOO_OLD),
    ("passthrough: the file is made of extents", _PARTS),
    ("passthrough: not on an immutable mount", _IMMUTABLE),
    ("passthrough: ", "look up that errno in ioctl(2) and the kernel's log: {reason}"),
)

# By the beginning of a counted reason: (the reason in other words, the remedy).
_MEANINGS: Final[tuple[tuple[str, str], ...]] = (
    ("passthrough: EPERM", "the daemon may not hand files to the kernel: mount as root"),
    ("passthrough: ELOOP", "the backing filesystem lies on others: --stack-depth 2"),
    ("passthrough: ENOSYS", "the kernel has no passthrough: Linux 6.9 or later"),
    ("passthrough: the file is made of extents", "the kernel passes only whole files through"),
    ("passthrough: not on an immutable mount", "an immutable mount avoids opens instead"),
    ("passthrough: READ all the same", "readahead and fadvise send READ even then; harmless"),
    ("passthrough: ", "the kernel refused the backing file, with this errno"),
    ("splice: too small", "a small read costs less copied; harmless"),
    ("splice: the pipe is too short", "raise the sysctl fs.pipe-max-size, or mount as root"),
    ("splice: no pipe", "the daemon's user has too many pipes: sysctl fs.pipe-user-pages-soft"),
    ("splice: the backing filesystem refused", "it has no splice: reads are copied by pool"),
    ("splice: not over io_uring", "a ring takes no pages by reference: --transport dev"),
    ("mmap: the pipe is too short", "raise the sysctl fs.pipe-max-size, or mount as root"),
    ("mmap: no pipe", "the daemon's user has too many pipes: sysctl fs.pipe-user-pages-soft"),
    ("mmap: the backing file cannot be mapped", "its filesystem has no mmap: --path auto"),
    ("mmap: the file ends within", "the file is shorter than the read, or was truncated; harmless"),
    ("mmap: the window was not prefaulted", "the backing disk was too slow: warm the file first"),
    ("mmap: served from an unlocked", "the lock budget is used up: a larger --lock-budget"),
    ("mmap: not over io_uring", "a ring takes no pages by reference: --transport dev"),
    ("pool: served from an unlocked", "the lock budget is used up: a larger --lock-budget"),
    ("no lease: handed up", "a READ came before or after the file's lease; Python answered"),
    ("zero-message opens: the kernel", "opens cost a message each: Linux 5.1 or later"),
    ("zero-message opens: the tree", "the tree answers for some names itself, so opens are asked"),
)


def meaning(reason: str) -> str:
    """Return a counted reason in other words, with its remedy; "" for an unknown one."""
    return next((text for start, text in _MEANINGS if reason.startswith(start)), "")


def advice(found: Explanation) -> str:
    """Return one line of advice."""
    served = found.served
    if not served.mode:
        return f"it cannot be opened: {served.reason}" if served.reason else _about_names(found)
    by_mode: Mapping[str, Callable[[Explanation], str]] = {
        "passthrough": _about_names,
        "naive": lambda _: "mount without --path naive: Python copies each read twice",
        "upcall": _about_upcalls,
    }
    return by_mode.get(served.mode, _about_cached)(found)


def _about_names(found: Explanation) -> str:
    if found.names.leased or found.options.get("directory_lease", True):
        return GOOD
    return "mount without --no-directory-lease: names and opens then need no Python"


def _about_upcalls(found: Explanation) -> str:
    if found.options.get("path") == "upcall":
        return "mount without --path upcall: Python answers each read"
    if found.served.forced == "upcall":
        return "leave path='upcall' out where the tree makes this entry: Python answers each read"
    return (
        f"{GOOD} for bytes that a program makes at each read; if they stay the same, show them as"
        " Bytes or write them to a File"
    )


def _about_cached(found: Explanation) -> str:
    served = found.served
    if served.reason:
        if served.reason.startswith("passthrough: ELOOP") and found.options.get("stack_depth") == 2:
            return _STACKED_TWICE
        for start, text in _REMEDIES:
            if served.reason.startswith(start):
                return text.format(reason=served.reason)
    where = "mount with --path auto"
    if served.forced and found.options.get("path") != served.forced:
        where = f"leave path={served.forced!r} out where the tree makes this entry"
    return f"{where}: the kernel then passes the file through if it can"
