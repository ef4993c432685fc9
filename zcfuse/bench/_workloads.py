"""The workloads of `zcfuse bench`: their work, their files and their cache state.

The backing tree's data is warm in every row. A cold row drops the target's cache of a file's bytes
(by posix_fadvise(2), on mounts only), or the kernel's dentries, on every target alike.
"""

import os
import random
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

import msgspec

from zcfuse.bench._clients import ClientProcess, Timing
from zcfuse.bench._sources import SMALL_FILE_BYTES, SourceTree

_BLOCK: Final = 1 << 20
_PAGE: Final = 4096
_RANDOM_READS: Final = 8192
_WALK_LIMIT: Final = 20_000
_MISSING_NAMES: Final = 1000
_DROP_CACHES: Final = "/proc/sys/vm/drop_caches"
_DENTRIES_AND_INODES: Final = "2"


class Cold(Enum):
    """The cache to drop before a workload runs. `AS_LEFT` does not warm it up either."""

    NOTHING = "warm"
    DATA = "cold file cache of the mount"
    DENTRIES = "cold dentries"
    AS_LEFT = "as left"


class Round(msgspec.Struct, frozen=True):
    """A workload's input: the tree, its root on the target, and the round's number."""

    tree: SourceTree
    root: str
    number: int


Work = Callable[[ClientProcess, Round], Timing]


class Workload(msgspec.Struct, frozen=True):
    """A row of the benchmark. `needs_large` and `needs_small` say what the tree must have."""

    name: str
    cold: Cold
    work: Work
    needs_large: bool = False
    needs_small: bool = False

    def missing(self, tree: SourceTree) -> str:
        """Why it cannot run on this tree or for this user; empty if it can."""
        if self.needs_large and not tree.large:
            return "no file of 4 MiB or more"
        if self.needs_small and not tree.small:
            return "no file of 64 KiB or less"
        if self.cold is Cold.DENTRIES and not os.access(_DROP_CACHES, os.W_OK):
            return f"cold dentries need root ({_DROP_CACHES})"
        return ""


def drop_dentries() -> None:
    """Drop unused dentries and inodes once; this changes no setting (proc(5)).

    Since Linux 5.15 inodes keep their cached pages, except FUSE's.
    """
    with open(_DROP_CACHES, "w", encoding="ascii") as file:
        file.write(_DENTRIES_AND_INODES)


def _on_large(command: str, **arguments: object) -> Work:
    def work(client: ClientProcess, run: Round) -> Timing:
        size = run.tree.large_size
        return client.time(command, size=size, **arguments)

    return work


def _random_reads(client: ClientProcess, run: Round) -> Timing:
    return client.time(
        "read_random",
        size=run.tree.large_size,
        block=_PAGE,
        count=_RANDOM_READS,
        seed=run.number,
    )


def _open_read_close(processes: int) -> Work:
    def work(client: ClientProcess, run: Round) -> Timing:
        return client.time(
            "open_read_close",
            root=run.root,
            names=run.tree.small,
            limit=SMALL_FILE_BYTES,
            processes=processes,
        )

    return work


def _stat(client: ClientProcess, run: Round) -> Timing:
    return client.time("stat", root=run.root, names=run.tree.small)


def _walk(client: ClientProcess, run: Round) -> Timing:
    return client.time("walk", root=run.root, limit=_WALK_LIMIT)


def _missing(client: ClientProcess, run: Round) -> Timing:
    """Look up names derived from the round's number: new ones, or the previous ones."""
    chosen = random.Random(run.number)
    names = [f"absent-{chosen.getrandbits(64):016x}" for _ in range(_MISSING_NAMES)]
    return client.time("missing", root=run.root, names=names)


WORKLOADS: Final = (
    Workload("sequential 1 MiB", Cold.DATA, _on_large("read", block=_BLOCK), needs_large=True),
    Workload("random 4 KiB", Cold.DATA, _random_reads, needs_large=True),
    Workload("mmap, touch every page", Cold.DATA, _on_large("touch"), needs_large=True),
    Workload(
        "sendfile 1 MiB to a socket",
        Cold.DATA,
        _on_large("sendfile", block=_BLOCK, to="socket"),
        needs_large=True,
    ),
    Workload(
        "sendfile 1 MiB to /dev/null",
        Cold.DATA,
        _on_large("sendfile", block=_BLOCK, to="null"),
        needs_large=True,
    ),
    Workload("walk and stat, cold", Cold.DENTRIES, _walk),
    Workload("walk and stat, warm", Cold.NOTHING, _walk),
    Workload("stat by path, cold", Cold.DENTRIES, _stat, needs_small=True),
    Workload("open+read+close 16 KiB, cold", Cold.DENTRIES, _open_read_close(1), needs_small=True),
    Workload("the same, warm", Cold.NOTHING, _open_read_close(1), needs_small=True),
    Workload("the same, 2 processes", Cold.NOTHING, _open_read_close(2), needs_small=True),
    Workload("missing names, first", Cold.DENTRIES, _missing),
    Workload("missing names, again", Cold.NOTHING, _missing),
)

BY_NAME: Final[Mapping[str, Workload]] = {workload.name: workload for workload in WORKLOADS}
