"""A mount that shows each user something else: ``per_user.py SOURCE MOUNTPOINT``.

``mine`` is the directory SOURCE/UID of whoever looks, if there is one; ``everybody`` is the
directory SOURCE/everybody; ``whoami`` is a file that says who looks. Nobody finds the directory of
another user under any name. To be run as root, since other users are let in. Ctrl-C unmounts.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping

import trio

import zcfuse


class PerUser(zcfuse.Dir):
    """The root directory. What it answers depends on who asks, so nothing of it is cached."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source
        self._everybody = zcfuse.Mirror(os.path.join(source, "everybody"))
        # Made once each: the directory that a user comes back to is the one that was there.
        self._mine: dict[int, zcfuse.Mirror] = {}

    async def lookup(self, name: str, who: zcfuse.Who) -> zcfuse.Entry | zcfuse.Tree | None:
        """Return what `name` is to `who`."""
        return self._seen_by(who).get(name)

    async def list(self, who: zcfuse.Who) -> Mapping[str, zcfuse.Entry | zcfuse.Tree]:
        """Return all that `who` sees."""
        return self._seen_by(who)

    def _seen_by(self, who: zcfuse.Who) -> dict[str, zcfuse.Entry | zcfuse.Tree]:
        seen: dict[str, zcfuse.Entry | zcfuse.Tree] = {
            "everybody": self._everybody,
            "whoami": zcfuse.Bytes(f"{who.uid}\n".encode(), uid=who.uid, mode=0o400),
        }
        mine = os.path.join(self._source, str(who.uid))
        if who.uid not in self._mine and os.path.isdir(mine):
            self._mine[who.uid] = zcfuse.Mirror(mine)
        if who.uid in self._mine:
            seen["mine"] = self._mine[who.uid]
        return seen


async def main(source: str, mountpoint: str) -> None:
    options = zcfuse.MountOptions(allow_other=True)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            zcfuse.mount(PerUser(source), mountpoint, options) as mount,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{source} is mounted on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # somebody else may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2])
