"""Several directories as one: ``union.py MOUNTPOINT TOP [LOWER...]``.

Shows the directories merged on MOUNTPOINT, a name of TOP before the same name of the next, until a
signal ends it. A whiteout (``.wh.NAME``, or as overlayfs writes it) in one hides NAME in those that
follow, so unpacked layers of a container image can be named as they are, the last one first.
"""

import signal
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse


async def main(mountpoint: str, layers: list[str]) -> None:
    tree = zcfuse.Union(layers)
    # Before the mount, so that an early Ctrl-C unmounts as a late one does.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{len(layers)} layers are mounted on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # somebody else may unmount
            nursery.cancel_scope.cancel()
    tree.close()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2:])
