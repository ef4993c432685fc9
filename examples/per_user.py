"""A mount that shows each user a different tree: ``per_user.py SOURCE MOUNTPOINT``.

``mine`` is the directory SOURCE/UID of the calling user, if it exists; ``everybody`` is the
directory SOURCE/everybody; ``whoami`` is a file with the user's id. A user cannot reach the
directory of another user under any name. Run it as root, because it gives other users access.
Ctrl-C unmounts.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping

import trio

import zcfuse


class PerUser(zcfuse.Dir):
    """The root directory. Its answers depend on the user, so the kernel caches none of them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source
        self._everybody = zcfuse.Mirror(os.path.join(source, "everybody"))
        # Create each mirror once, so that a user gets the same directory each time.
        self._mine: dict[int, zcfuse.Mirror] = {}

    async def lookup(self, name: str, who: zcfuse.Who) -> zcfuse.Entry | zcfuse.Tree | None:
        """Return the entry that `who` sees under `name`."""
        return self._seen_by(who).get(name)

    async def list(self, who: zcfuse.Who) -> Mapping[str, zcfuse.Entry | zcfuse.Tree]:
        """Return every entry that `who` sees."""
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
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2])
