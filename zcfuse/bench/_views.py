"""Described views of a tree to measure beside its plain mirror: whole files, slices, a filter.

Each view shows the measured files of the tree under their names. The data path must answer for all
of them, so their ratios to the mirror show what a description costs.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Final

import msgspec

from zcfuse.bench._sources import SourceError, SourceTree, directory_outside
from zcfuse.bench._targets import Target, zcfuse_target

FILES: Final = "files"
SLICES: Final = "slices"
FILTER: Final = "filter"
_HIDDEN: Final = ("--hide", "*.hidden", "--hide", ".git", "--hide", "hidden/*")  # measures no hit
_FREE_SHARE: Final = 2


@contextlib.contextmanager
def views_of(tree: SourceTree) -> Iterator[dict[str, str]]:
    """Write manifests of the measured files of `tree`, one of whole files and one of slices.

    They lie outside the tree with the shard for the slices, and the end of the block removes them.
    Yields their paths by name. Raises `SourceError` without enough space.
    """
    with directory_outside(tree.root) as base:
        names = [*([tree.large] if tree.large else []), *tree.small]
        needed = sum(os.stat(os.path.join(tree.root, name)).st_size for name in tree.small)
        space = os.statvfs(base)
        if needed * _FREE_SHARE > space.f_bavail * space.f_frsize:
            raise SourceError(f"{base}: no space for a shard of {needed >> 20} MiB: set TMPDIR")
        manifests = {view: os.path.join(base, f"{view}.jsonl") for view in (FILES, SLICES)}
        shard = os.path.join(base, "shard")
        with (
            open(shard, "wb") as joined,
            open(manifests[FILES], "wb") as files,
            open(manifests[SLICES], "wb") as slices,
        ):
            for name in names:
                path = os.path.join(tree.root, name)
                whole = msgspec.json.encode({"path": name, "file": path}) + b"\n"
                files.write(whole)
                if name == tree.large:
                    slices.write(whole)
                    continue
                begin = joined.tell()
                with open(path, "rb") as source:
                    shutil.copyfileobj(source, joined)
                piece = {"offset": begin, "length": joined.tell() - begin}
                line = {"path": name, "file": shard, **piece}
                slices.write(msgspec.json.encode(line) + b"\n")
        os.sync()
        yield manifests


def view_targets(tree: SourceTree, manifests: dict[str, str], path: str, base: str) -> list[Target]:
    """The views mounted by zcfuse by a serving path, in directories of `base`."""
    targets = []
    for view in (*manifests, FILTER):
        options = ["--tree", manifests[view]] if view in manifests else list(_HIDDEN)
        source = None if view in manifests else tree.root
        mountpoint = os.path.join(base, f"{path}-{view}")
        target = zcfuse_target(path, source, mountpoint, options)
        targets.append(msgspec.structs.replace(target, name=f"{target.name} {view}"))
    return targets
