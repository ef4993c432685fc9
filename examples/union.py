"""Merge several directories: ``union.py MOUNTPOINT TOP [LOWER...]``.

Shows the directories merged on MOUNTPOINT until a signal ends the program. If several have a name,
the first one wins. A whiteout (``.wh.NAME``, or as overlayfs writes it) hides NAME in the
directories after it, so the unpacked layers of a container image work as they are, the last one
first.
"""

import signal
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse


async def main(mountpoint: str, layers: list[str]) -> None:
    tree = zcfuse.Union(layers)
    # Open it before the mount, so that an early Ctrl-C also unmounts.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{len(layers)} layers are mounted on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()
    tree.close()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2:])
