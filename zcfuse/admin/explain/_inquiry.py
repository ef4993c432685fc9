"""Asks the tree, the data path and the kernel how a file of the mount is served.

It runs on the trio thread, for one request of the status socket. It opens the backing file, as for
a client, and the data path tries how it would serve the file. No counter counts this.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from zcfuse.admin._file_requests import FileRequests, resident
from zcfuse.admin._messages import FileRange
from zcfuse.admin.explain._document import BackingPart, Explanation, Names, Served, Step
from zcfuse.admin.status import StatusDocument, printable
from zcfuse.fuse import DirectoryLeases
from zcfuse.linux import STACKED_TYPES, MountEntry, read_mounts
from zcfuse.options import UNLIMITED_CACHE_TIMEOUT_S
from zcfuse.reasons import coded
from zcfuse.tree import (
    HOLE,
    WHOLE_FILE,
    BackingFile,
    Lease,
    Node,
    Tree,
    merged_directories,
)

_MOST_PARTS: Final = 8
_MEMORY: Final = "/memfd:"
_KERNEL_FACTS: Final = (
    "minor",
    "passthrough",
    "stack_depth",
    "zero_message_opens",
    "max_pages",
    "max_readahead",
)


async def explain(
    file: FileRange,
    requests: FileRequests,
    tree: Tree,
    status: StatusDocument,
    leases: DirectoryLeases | None,
    open_as: str,
) -> Explanation:
    """Explain how a file is served.

    Parameters:
        file: the file; its nodeid shows whether the data path answers for its name.
        requests: finds and opens the file.
        tree: the tree of the mount.
        status: the status of the mount now.
        leases: the directory leases; None without any.
        open_as: how the data path serves the nodeid now, or "".

    Raises:
        OSError: there is no such file.
    """
    chain = await requests.chain(file)
    node = chain[-1]
    datapath = status.datapath or {}
    transport = msgspec.convert(datapath.get("transport", {}), dict[str, Any])
    found = _Opened(forced=_forced(status.options))
    if stat.S_ISREG((await requests.attributes(node)).mode):
        await _open(requests, node, found)
    by_option = found.forced == _forced(status.options)
    ring = transport.get("kind") == "uring"
    steps = _steps(found.mode, found.reason, found.forced, by_option, ring)
    locked = requests.locks.bytes_of(file.path)
    return Explanation(
        pid=status.pid,
        source=status.source,
        mountpoint=status.mountpoint,
        options=status.options,
        node=printable(tree.describe(node)),
        volatile=node.volatile,
        names=_names(file, chain, tree, status, leases),
        parts=found.parts,
        parts_in_all=found.parts_in_all,
        kernel=_kernel(datapath),
        transport=str(transport.get("kind", "dev")),
        transport_reason=str(transport.get("reason", "")),
        served=Served(found.mode, found.reason, open_as, found.forced, steps, locked),
        fallbacks=msgspec.convert(datapath.get("fallbacks", {}), dict[str, int]),
        directories=[printable(path) for path in merged_directories(tree)],
    )


class _Opened(msgspec.Struct):
    """Facts from opening a file; the fields are those of `Served` and `Explanation`."""

    forced: str
    mode: str = ""
    reason: str = ""
    parts: list[BackingPart] = []
    parts_in_all: int = 0


async def _open(requests: FileRequests, node: Node, into: _Opened) -> None:
    try:
        async with requests.opened(node) as opened:
            backing = opened.backing
            into.mode, into.reason = await opened.ask(requests.serve)
            if backing.growing is not None:
                into.mode, into.reason = "cached", "passthrough_incomplete"
            into.parts, into.parts_in_all = await opened.ask(_parts), len(backing.extents)
            if backing.extents:
                into.forced = backing.path or into.forced
            elif into.mode == "upcall" and into.forced != "upcall":
                into.forced = ""  # only upcall serves bytes that a program makes
    except OSError as error:
        into.reason = error.strerror or str(error)


def _forced(options: Mapping[str, object]) -> str:
    path = str(options.get("path"))
    return "" if path == "auto" else path


def _kernel(datapath: Mapping[str, object]) -> dict[str, object]:
    init = msgspec.convert(datapath.get("init", {}), dict[str, object])
    return {name: init[name] for name in _KERNEL_FACTS if name in init}


def _parts(backing: BackingFile) -> list[BackingPart]:
    mounts = read_mounts()
    found = []
    start = 0
    for extent in backing.extents[:_MOST_PARTS]:
        length = None if extent.length == WHOLE_FILE else extent.length
        if extent.fd == HOLE:
            found.append(BackingPart("", 0, length, "hole", False, None))
        else:
            path = os.readlink(f"/proc/self/fd/{extent.fd}")
            filesystem = "memory" if path.startswith(_MEMORY) else _filesystem(extent.fd, mounts)
            size = os.fstat(extent.fd).st_size - extent.offset if length is None else extent.length
            cached = resident(backing, start, max(size, 0))
            found.append(
                BackingPart(
                    printable(path),
                    extent.offset,
                    length,
                    filesystem,
                    filesystem in STACKED_TYPES,
                    cached,
                )
            )
        start += extent.length
    return found


def _filesystem(fd: int, mounts: Sequence[MountEntry]) -> str:
    """Return the type of an open file's filesystem, or "unknown" if no list names it."""
    number = 0
    with contextlib.suppress(OSError, StopIteration), open(f"/proc/self/fdinfo/{fd}") as file:
        number = next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    return next((entry.fstype for entry in mounts if entry.mount_id == number), "unknown")


def _steps(mode: str, reason: str, forced: str, by_option: bool, ring: bool) -> list[Step]:
    """Return the paths from the best to the chosen one. `by_option`: the mount forces that."""
    if mode in ("", "passthrough"):
        return [Step("passthrough", "all reads and mappings", "")] if mode else []
    demanded = coded("path_demanded" if by_option else "path_of_entry", forced) if forced else ""
    if mode in ("upcall", "naive"):
        why = demanded or "made_by_program"
        better = [Step(path, "", why) for path in ("passthrough", "splice", "mmap", "pool")]
        return [*better, Step(mode, "all reads", "")]
    steps = [Step("passthrough", "", reason or demanded)]
    if ring:
        return [
            *steps,
            Step("splice", "", demanded if forced == "pool" else "splice_not_over_uring"),
            Step("mmap", "", demanded if forced == "pool" else "mmap_not_over_uring"),
            Step("pool", "all reads", ""),
        ]
    if forced in ("splice", "mmap", "pool"):
        order = ("splice", "mmap", "pool")
        better = [Step(path, "", demanded) for path in order[: order.index(forced)]]
        return [*steps, *better, Step(forced, "all reads", "")]
    return [
        *steps,
        Step("splice", "reads of 64 KiB and more", "splice_too_small"),
        Step("mmap", "", "mmap_never_automatic"),
        Step("pool", "reads of less than 64 KiB", ""),
    ]


def _names(
    file: FileRange,
    chain: Sequence[Node],
    tree: Tree,
    status: StatusDocument,
    leases: DirectoryLeases | None,
) -> Names:
    timeout: float | None = 0.0 if chain[-1].volatile else _timeout(status.options)
    lease, below = _lease(file, chain, tree)
    why = _not_leased(lease, below, status.options, leases)
    archive = lease is not None and lease.archive is not None
    ours = leases is not None and leases.covers(file.nodeid)
    freshness = leases.freshness(file.nodeid) if leases is not None else ""
    if ours or (file.nodeid == 0 and not why):
        pushed = freshness in ("pushed", "strict")
        fixed = freshness == "fixed" or pushed or archive
        return Names(
            True,
            "",
            None if fixed and timeout else timeout,
            pushed,
            "" if pushed else _not_pushed(status),
            freshness == "strict",
        )
    return Names(False, why or ("names_no_room" if archive else "names_lost"), timeout)


def _not_pushed(status: StatusDocument) -> str:
    coherence = (status.datapath or {}).get("coherence") or {}
    refused = msgspec.convert(coherence, dict[str, Any]).get("refused", {})
    return next(iter(refused), "")


def _timeout(options: Mapping[str, object]) -> float | None:
    value = options.get("cache_timeout")
    unlimited = value is None or float(str(value)) >= UNLIMITED_CACHE_TIMEOUT_S
    return None if unlimited else float(str(value))


def _lease(
    file: FileRange, chain: Sequence[Node], tree: Tree
) -> tuple[Lease | None, Sequence[bytes]]:
    """Return the lease of a directory on the way, if any, and the names below it."""
    names = [name for name in file.path.split(b"/") if name]
    lease, below = None, names
    for depth, node in enumerate(chain):
        found = tree.lease_of(node)
        if found is not None:
            lease, below = found, names[depth:]
    return lease, below


def _not_leased(
    lease: Lease | None,
    below: Sequence[bytes],
    options: Mapping[str, object],
    leases: DirectoryLeases | None,
) -> str:
    """Return the code of why the data path does not answer for a node, "" if it should."""
    if options.get("path") in ("naive", "upcall"):
        return coded("names_of_path", str(options["path"]))
    if leases is None:
        return "names_lease_off"
    if leases.revoked:
        return "names_revoked"
    if lease is None:
        return "names_by_tree"
    for kept in lease.kept:
        if below[: kept.count(b"/") + 1] == kept.split(b"/"):
            return coded("names_of_policy", printable(os.fsdecode(kept)))
    # For such a tree the data path forwards the entries that only Python can answer.
    return "names_by_tree" if lease.described is not None else ""
