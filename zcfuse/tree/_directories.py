"""The directories that a tree only merges, so that the kernel could show them by itself."""

from __future__ import annotations

import os

from zcfuse.tree._types import Lease, Tree


def merged_directories(tree: Tree) -> tuple[str, ...]:
    """Return the paths of the directories that a tree shows merged, the topmost first.

    Returns:
        One path for a mirror, several for a union of directories. Empty for a tree that has other
        layers, hides or renames names, or answers anything by itself.
    """
    lease = tree.lease_of(tree.root)
    if lease is None:
        return ()
    leases = lease.layers or (lease,)
    # The marks of a union's only layer hide names; the kernel would show them.
    if lease.filters or len(lease.layers) == 1 or not all(map(_is_plain, leases)):
        return ()
    return tuple(os.readlink(f"/proc/self/fd/{one.fd}") for one in leases)


def _is_plain(lease: Lease) -> bool:
    return lease.fd >= 0 and not (lease.kept or lease.layers or lease.filters)
