"""The result of `dump.py`, computed by asking a tree."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from tests.layers.conftest import Dump
from zcfuse.tree import Attributes, Node, Tree


def described(tree: Tree, node: Node, attributes: Attributes) -> dict[str, Any]:
    """Everything visible of one file."""
    found: dict[str, Any] = {
        "mode": oct(attributes.mode),
        "ino": attributes.ino,
        "nlink": attributes.nlink,
        "owner": (attributes.uid, attributes.gid),
        "rdev": attributes.rdev,
        "times": (attributes.mtime_ns, attributes.ctime_ns),
        "blocks": attributes.blocks,
    }
    assert tree.attributes(node) == attributes
    if not stat.S_ISDIR(attributes.mode):
        found["size"] = attributes.size
    if stat.S_ISREG(attributes.mode):
        file = tree.open(node)
        assert file.attributes() == attributes
        found["bytes"] = hashlib.sha256(file.pread(attributes.size + 1, 0)).hexdigest()
        file.close()
    elif stat.S_ISLNK(attributes.mode):
        found["target"] = tree.readlink(node)
    if not stat.S_ISFIFO(attributes.mode):
        names = sorted(tree.listxattr(node))
        found["xattrs"] = {os.fsdecode(name): tree.getxattr(node, name) for name in names}
    return found


def tree_dump(tree: Tree, names: Sequence[str]) -> Dump:
    """Everything that the tree shows, with lookups of `names` in every directory."""
    found: Dump = {}
    left: list[tuple[bytes, Node, Attributes]] = [(b"", tree.root, tree.attributes(tree.root))]
    while left:
        at, node, attributes = left.pop()
        found[at] = described(tree, node, attributes)
        if not stat.S_ISDIR(attributes.mode):
            continue
        entries = [one[1:] for one in tree.listing(node).entries(0)][2:]
        listed = [name for name, _, _ in entries]
        assert len(listed) == len(set(listed))
        found[at]["names"] = sorted(listed)
        found[at]["types"] = {name: stat.S_ISDIR(one.mode) for name, _, one in entries}
        for name in {*listed, *map(os.fsencode, names)}:
            path = os.path.join(at, name)
            try:
                left.append((path, *tree.lookup(node, name)))
            except OSError as error:
                found[path] = errno.errorcode[error.errno or 0]
    return found
