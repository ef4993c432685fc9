"""The directories that the data path answers for: mirrors, archives and those described by value.

Belongs to the trio thread. The root gets its lease before serving starts. Another node gets it just
before the reply that shows the node to the kernel. A lease ends when the kernel forgets the node.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final

from zcfuse.datapath import OWN_BIT
from zcfuse.fuse._handles import Leases
from zcfuse.fuse._nodes import ROOT_NODEID
from zcfuse.reasons import push_refusal
from zcfuse.tree import (
    PUSHING,
    ArchiveLease,
    DescribedTree,
    EntryDescription,
    Lease,
    Node,
    Tree,
)

if TYPE_CHECKING:
    from zcfuse.datapath import Source

INDEX_BYTES: Final = 128 << 20
"""Memory for the indexes of archives; Python answers for those that do not fit."""

log = logging.getLogger(__name__)


class DirectoryLeases:
    """The leases of one mount.

    `coherence`: of leased directories whose trees say nothing else, as `MountOptions` has it. If
    pushes are refused, answers hold for the cache timeout, and the status counts the reason.
    `watches`: whether the data path can push changes.
    """

    def __init__(
        self, tree: Tree, datapath: Leases, *, coherence: str = "ttl", watches: bool = False
    ) -> None:
        self._tree = tree
        self._coherence = coherence
        self._watches = watches
        self._datapath = datapath
        self._leased: set[int] = set()
        self._index_bytes: dict[int, int] = {}  # bytes by nodeid
        self._described: dict[int, DescribedTree] = {}
        self._revoked = False
        self.push_refused = ""
        """Why changes of a leased directory are not pushed, a code of `reasons`, or ""."""

    @property
    def revoked(self) -> bool:
        """Whether the data path forwards every request from now on."""
        return self._revoked

    def covers(self, nodeid: int) -> bool:
        """Whether the data path answers for a node: a leased directory, or a node below one."""
        return not self._revoked and (bool(nodeid & OWN_BIT) or nodeid in self._leased)

    def freshness(self, nodeid: int) -> str:
        """Return `DataPath.freshness` of a node that the data path answers for, or ""."""
        return self._datapath.freshness(nodeid) if self.covers(nodeid) else ""

    def grant(self, nodeid: int, node: Node) -> None:
        """Lease the directory that a node mirrors, if any, unless leases were revoked.

        An error of the tree is only logged, because Python answers without a lease.
        """
        try:
            self._grant(nodeid, node)
        except Exception:
            log.exception("no directory lease")

    def grant_root(self) -> None:
        """Lease the directory that the tree's root mirrors, if any.

        Raises:
            ValueError: the tree keeps an invalid path.
        """
        self._grant(ROOT_NODEID, self._tree.root)

    def renew_root(self) -> None:
        """Lease what the tree's root is now, in place of what it was."""
        if not self._revoked:
            self.forget([ROOT_NODEID])
            self.grant(ROOT_NODEID, self._tree.root)

    def _grant(self, nodeid: int, node: Node) -> None:
        lease = None if self._revoked else self._tree.lease_of(node)
        if lease is None:
            return
        try:
            if lease.archive is not None:
                if not self._lease_archive(nodeid, lease.archive):
                    return
            elif lease.source is not None:
                self._datapath.lease_source(nodeid, lease.source)
            elif lease.described is not None:
                self._lease_index(nodeid, lease.described)
            elif lease.layers:
                if not self._lease_layers(nodeid, lease):
                    return
            else:
                self._datapath.lease_directory(nodeid, lease.fd, _checked_names(lease.kept))
        except OSError as error:
            log.info("no directory lease: %s", error)
            return
        for patterns, above in lease.filters:
            self._datapath.filter_lease(nodeid, patterns, above)
        self._leased.add(nodeid)
        how = lease.coherence or self._coherence
        if how in PUSHING and _shows_directories(lease):
            self._push_changes(nodeid, strict=how == "strict")

    def _push_changes(self, nodeid: int, *, strict: bool) -> None:
        """Start pushing changes; if that fails, answers hold for the cache timeout."""
        reason = "push_not_watching"
        if self._watches:
            reason = self._datapath.push_changes(nodeid, strict)
        if reason:
            self.push_refused = reason
            log.warning("%s", push_refusal(reason))

    def _lease_layers(self, nodeid: int, lease: Lease) -> bool:
        """Return False if there is no memory for an archive's index."""
        if lease.refusals is not None:
            self._datapath.lease_pool(
                nodeid, [one.fd for one in lease.layers], lease.refusals, lease.asks
            )
            return True
        if any(one.described is not None for one in lease.layers):
            return False  # Python answers for a layer that a program may change
        found = [one.archive for one in lease.layers if one.archive is not None]
        size = sum(archive.size for archive in found)
        if size and not self._has_room(size):
            return False
        layers = [_filtered(_layer(one), one) for one in lease.layers]
        changes = (lease.work, lease.metacopies, lease.redirects)
        self._datapath.lease_union(nodeid, layers, lease.sees_trusted, *changes)
        self._index_bytes[nodeid] = size
        return True

    def _has_room(self, size: int) -> bool:
        if sum(self._index_bytes.values()) + size <= INDEX_BYTES:
            return True
        log.info("no room for an archive's names in the data path: Python answers for them")
        return False

    def nodeid(self, node: Node) -> int | None:
        """Return the nodeid of a described directory, or None."""
        for nodeid, described in self._described.items():
            number = described.number(node)
            if number is not None:
                return self._datapath.index_nodeid(nodeid, number) or None
        return None

    def _lease_index(self, nodeid: int, described: DescribedTree) -> None:
        root = described.root()
        self._datapath.lease_index(
            nodeid,
            uid=root.uid,
            gid=root.gid,
            made_ns=root.made_ns,
            given=root.given,
            key=root.key,
            time_ns=root.time_ns,
            asks=root.asks,
        )
        self._described[nodeid] = described
        described.publish(_Sink(self._datapath, nodeid, self.revoke))

    def _lease_archive(self, nodeid: int, archive: ArchiveLease) -> bool:
        """Return False if there is no memory for it."""
        if not self._has_room(archive.size):
            return False
        index = archive.index()
        fd = archive.open()
        try:
            self._datapath.lease_archive(
                nodeid,
                index,
                fd,
                first_ino=archive.first_ino,
                uid=archive.uid,
                gid=archive.gid,
            )
        finally:
            os.close(fd)
        self._index_bytes[nodeid] = archive.size
        return True

    def forget(self, nodeids: Iterable[int]) -> None:
        """Give back the leases of nodes that the kernel has forgotten."""
        for nodeid in self._leased.intersection(nodeids):
            self._leased.remove(nodeid)
            self._index_bytes.pop(nodeid, None)
            self._datapath.drop_directory(nodeid)

    def revoke(self) -> None:
        """Make the data path forward every request, and grant no more leases."""
        self._revoked = True
        for nodeid in self._leased:
            self._datapath.revoke_directory(nodeid)


def _shows_directories(lease: Lease) -> bool:
    if lease.layers:
        return any(map(_shows_directories, lease.layers))
    return lease.archive is None and lease.source is None and lease.described is None


def _layer(lease: Lease) -> int | Source:
    """Return what answers for a layer; raise OSError if its archive cannot be read."""
    if lease.source is not None:
        return lease.source
    return lease.fd if lease.archive is None else _index_source(lease.archive)


def _index_source(archive: ArchiveLease) -> Source:
    """Return an archive's index as a layer; raise OSError if the archive cannot be read."""
    index = archive.index()
    fd = archive.open()
    try:
        return index.source(fd, first_ino=archive.first_ino, uid=archive.uid, gid=archive.gid)
    finally:
        os.close(fd)


def _filtered(source: int | Source, lease: Lease) -> int | Source:
    """Return a layer with the filters of its lease."""
    for patterns, above in lease.filters:
        from zcfuse.datapath import filter_source  # compiled

        source = filter_source(source, patterns, above)
    return source


class _Sink:
    """The index of one node in the data path."""

    def __init__(self, datapath: Leases, nodeid: int, failed: Callable[[], None]) -> None:
        self._datapath = datapath
        self._nodeid = nodeid
        self.failed = failed

    def put(
        self,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        *,
        uid: int | None = None,
        valid_ms: int | None = None,
    ) -> list[int]:
        """Put entries into a directory; return their numbers."""
        return self._datapath.index_put(
            self._nodeid, directory, entries, time_ns, uid=uid, valid_ms=valid_ms
        )

    def list(
        self,
        directory: int,
        entries: list[EntryDescription],
        time_ns: int,
        *,
        uid: int | None,
        valid_ms: int | None,
        complete: bool,
    ) -> list[int]:
        """Put the names of a policy's directory, and list those."""
        return self._datapath.index_list(
            self._nodeid,
            directory,
            entries,
            time_ns,
            uid=uid,
            valid_ms=valid_ms,
            complete=complete,
        )

    def drop(self, directory: int, name: bytes, uid: int | None) -> None:
        """Remove a policy's answer."""
        self._datapath.index_drop(self._nodeid, directory, name, uid)

    def ino(self, number: int) -> int:
        """Return the inode number that clients see of an entry, or 0."""
        return self._datapath.index_ino(self._nodeid, number)

    def remove(self, directory: int, name: bytes, time_ns: int) -> None:
        """Remove an entry from a directory."""
        self._datapath.index_remove(self._nodeid, directory, name, time_ns)


def _checked_names(paths: Collection[bytes]) -> list[bytes]:
    """Return paths below a directory after checking them.

    Raises:
        ValueError: a path is invalid. It would keep nothing, and the lease would cover the file
            meant.
    """
    for path in paths:
        if not path or b"\0" in path or {b"", b".", b".."} & set(path.split(b"/")):
            raise ValueError(f"not a path below the leased directory: {path!r}")
    return list(paths)
