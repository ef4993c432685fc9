"""Tar shards as directories: ``tar_shards.py MOUNTPOINT SHARD...``.

Shows each SHARD, a tar or zip archive, as a directory of its members: ``train-0001.tar`` as
``train-0001/``. A member is a byte range of its shard, so nothing is unpacked. The first run
indexes the shards and keeps the index for later runs. Ctrl-C unmounts. ``training_loop.py`` reads
the mount.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse


def shards(paths: list[str]) -> zcfuse.Dir:
    """Index all shards and build the tree; report members that a shard cannot show."""
    tree = zcfuse.Dir()
    for path in paths:
        archive = zcfuse.Archive(path)
        for note in archive.index.notes:
            print(f"{path}: {note.count} members: {note.reason}", file=sys.stderr)
        tree.add(os.path.splitext(os.path.basename(path))[0], archive)
    return tree


async def main(mountpoint: str, tree: zcfuse.Dir) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{len(tree)} shards are shown on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        found = shards(sys.argv[2:])
    except zcfuse.ArchiveError as error:
        sys.exit(str(error))
    trio.run(main, sys.argv[1], found)
