"""A view of pieces of existing files: ``dataset_view.py MOUNTPOINT FILE...``.

Shows ``whole/`` with each FILE as it is, ``chunks/`` with each FILE cut into pieces of 1 MiB, and
``all``, the FILEs joined, each from the start of a page. Building the view copies no byte: every
file in it refers to pages of the FILEs. Ctrl-C unmounts.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse

CHUNK_BYTES = 1 << 20
PAGE_BYTES = 4096


def view(paths: list[str]) -> zcfuse.Dir:
    """Build the tree. Entries are values, so this opens no file."""
    whole, chunks, parts = zcfuse.Dir(), zcfuse.Dir(), []
    for path in paths:
        name, size = os.path.basename(path), os.stat(path).st_size
        whole.add(name, zcfuse.File(path))
        for number, offset in enumerate(range(0, size, CHUNK_BYTES)):
            chunks.add(f"{name}.{number:06}", zcfuse.Slice(path, offset, CHUNK_BYTES))
        parts += [zcfuse.Slice(path, 0, size), zcfuse.Zeros(-size % PAGE_BYTES)]
    return zcfuse.Dir({"whole": whole, "chunks": chunks, "all": zcfuse.Concat(parts)})


async def main(mountpoint: str, paths: list[str]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(view(paths), mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{len(paths)} files are shown on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2:])
