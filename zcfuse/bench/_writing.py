"""Changes to a tree as rows of the benchmark, and the writable mounts to make them on.

Each client works in a separate directory. The rows follow each other: one deletes what the one
before it made.
"""

import contextlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import Final

from zcfuse.bench._clients import ClientProcess, Timing
from zcfuse.bench._layers import union_peer_targets, upper_of
from zcfuse.bench._sources import SourceTree, directory_outside
from zcfuse.bench._targets import BACKING, Target, peer_targets, zcfuse_target
from zcfuse.bench._workloads import Cold, Round, Workload

WRITTEN_FILES: Final = 20_000
_WRITTEN_BYTES: Final = 64 << 20
_BLOCK: Final = 1 << 20
_PAGE: Final = 4096
_RANDOM_WRITES: Final = 8192


@contextlib.contextmanager
def writing_place(tree: SourceTree) -> Iterator[SourceTree]:
    """Create an empty backing directory outside of the measured tree, for the block's time.

    The directories of the unions go beside it. Raises `SourceError` if it has no place.
    """
    with directory_outside(tree.root) as base:
        root = os.path.join(base, BACKING)
        os.mkdir(root)
        yield SourceTree(root, "", 0, (), 0)


def writable_targets(
    place: SourceTree, paths: Sequence[str], peers: bool, base: str
) -> list[Target]:
    """A mirror and a union by each of the paths, and their peers, mounted below `base`."""
    beside = os.path.dirname(place.root)
    lower = os.path.join(beside, "lower")
    os.mkdir(lower)
    targets = []
    for path in paths:
        targets.append(zcfuse_target(path, place.root, os.path.join(base, path), ["--rw"]))
        name = f"{path} union"
        upper, work = upper_of(beside, name)
        options = [f"--upper={upper}", f"--work={work}", f"--layer={lower}"]
        targets.append(zcfuse_target(path, None, os.path.join(base, name), options, kind="union"))
    if peers:
        targets += peer_targets(place.root, base, writable=True)
        targets += union_peer_targets([lower], base, changes=beside)
    return targets


def _write(block: int, count: int, random: bool) -> Workload:
    def work(client: ClientProcess, run: Round) -> Timing:
        seed = run.number if random else None
        return client.time(
            "write", root=run.root, size=_WRITTEN_BYTES, block=block, count=count, seed=seed
        )

    name = "write 4 KiB at random" if random else "write 1 MiB"
    return Workload(name, Cold.AS_LEFT, work)


def writing_workloads(archive: str, files: int) -> tuple[Workload, ...]:
    """The rows: a file to write, `files` to create and delete, an archive to unpack and remove."""
    with tarfile.open(archive) as opened:
        members = len(opened.getnames())

    def row(name: str, command: str, **arguments: object) -> Workload:
        def work(client: ClientProcess, run: Round) -> Timing:
            return client.time(command, root=run.root, **arguments)

        return Workload(name, Cold.AS_LEFT, work)

    return (
        _write(_BLOCK, _WRITTEN_BYTES // _BLOCK, random=False),
        _write(_PAGE, _RANDOM_WRITES, random=True),
        row("create+write 4 KiB+close", "create", count=files, size=_PAGE),
        row("delete", "delete", count=files),
        row("tar -x, a member", "unpack", archive=archive, members=members),
        row("rm -r, a member", "remove", members=members),
    )
