"""Which names of a manifest mean something else after it was written again."""

from __future__ import annotations

from zcfuse.tree.manifest._columns import FILE, MIRROR, REMOTE, SYMLINK, Row
from zcfuse.tree.manifest._index import ROOT, Index


def changed_names(before: Index, after: Index) -> list[bytes]:
    """Return the topmost names that are new, gone or different; any thread may call this.

    Directories count as different, and so do nodes whose bytes are in the manifest.
    """
    old = {name: before.find(ROOT, name, ROOT) for name in before.names(ROOT)}
    changed = []
    for name in after.names(ROOT):
        number, was = after.find(ROOT, name, ROOT), old.pop(name, None)
        if was is None or number is None or not _is_same(before, was, after, number):
            changed.append(name)
    return [*changed, *old]


def _is_same(before: Index, old: int, after: Index, new: int) -> bool:
    return before.given(old) == after.given(new) and (
        _meaning(before, before.content(old)) == _meaning(after, after.content(new))
    )


def _meaning(index: Index, row: Row) -> object:
    """Return what compares equal for what does not depend on the rest of the manifest."""
    kind, source, offset, length = row
    if kind == FILE:
        return kind, index.files.path(source), offset, length
    if kind == SYMLINK:
        return kind, index.targets[offset : offset + length]
    if kind == MIRROR:
        return kind, index.mirrors[source]
    return (kind, index.urls[source]) if kind == REMOTE else object()
