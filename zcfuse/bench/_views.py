"""Views of a tree to measure beside its plain mirror.

Two describe the files, one as whole files and one as slices. One is a policy whose answers are
leased. One filters the mirror, and one is the mirror while somebody traces it.

Each view shows the measured files of the tree under their names. The data path must answer for all
of them, so their ratios to the mirror show what a description costs.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from zcfuse.bench._sources import SourceError, SourceTree, directory_outside
from zcfuse.bench._targets import Target, zcfuse_target

FILES: Final = "files"
SLICES: Final = "slices"
FILTER: Final = "filter"
POLICY: Final = "policy"
TRACED: Final = "traced"
_PROGRAM: Final = """
import os
from zcfuse import Dir, File, Leased, LeasedNames


class Leasing(Dir):
    leases = True

    def __init__(self, directory):
        super().__init__(key=directory)
        self.directory = directory

    def entry(self, name):
        path = os.path.join(self.directory, name)
        if os.path.isdir(path):
            return Leasing(path)
        return File(path) if os.path.exists(path) else None

    async def lookup(self, name, who):
        return Leased(self.entry(name), for_everyone=True)

    async def list(self, who):
        names = {name: self.entry(name) for name in os.listdir(self.directory)}
        return LeasedNames(names, for_everyone=True, complete=True)


tree = Leasing({root!r})
"""
_HIDDEN: Final = ("--hide", "*.hidden", "--hide", ".git", "--hide", "hidden/*")  # measures no hit
_FREE_SHARE: Final = 2


@contextlib.contextmanager
def views_of(tree: SourceTree) -> Iterator[dict[str, str]]:
    """Write what describes the measured files of `tree`: two manifests and a program.

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
        program = os.path.join(base, f"{POLICY}.py")
        with open(program, "w", encoding="utf-8") as text:
            text.write(_PROGRAM.replace("{root!r}", repr(tree.root)))
        os.sync()
        yield {**manifests, POLICY: program}


def view_targets(tree: SourceTree, written: dict[str, str], path: str, base: str) -> list[Target]:
    """The views mounted by zcfuse by a serving path, in directories of `base`."""
    shown: dict[str, tuple[str | None, Sequence[str]]] = {
        FILES: (None, ["--tree", written[FILES]]),
        SLICES: (None, ["--tree", written[SLICES]]),
        POLICY: (f"{written[POLICY]}:tree", []),
        FILTER: (tree.root, _HIDDEN),
        TRACED: (tree.root, []),
    }
    targets = []
    for view, (source, options) in shown.items():
        target = zcfuse_target(path, source, os.path.join(base, f"{path}-{view}"), options)
        name = f"{target.name} {view}"
        targets.append(msgspec.structs.replace(target, name=name, traced=view == TRACED))
    return targets
