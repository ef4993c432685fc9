"""A mount that hides files: ``policy.py SOURCE MOUNTPOINT PATTERN [PATTERN...]``.

Hides names that match one of the shell patterns (``*.tmp``, ``.git``), from listings and from
lookups. Python decides once per name and cache timeout. Reading the other files does not call
Python. Ctrl-C unmounts.
"""

import errno
import fnmatch
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import trio

import zcfuse
from zcfuse.tree import Attributes, Listing, Node


class HidingListing(Listing):
    """The entries of another listing that `mirror` shows, with their offsets."""

    def __init__(self, inner: Listing, mirror: "HidingMirror") -> None:
        self._inner = inner
        self._mirror = mirror

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the visible entries."""
        return (entry for entry in self._inner.entries(start) if not self._mirror.hides(entry[1]))

    def close(self) -> None:
        """Close the other listing."""
        self._inner.close()


class HidingMirror(zcfuse.Mirror):
    """A mirror of `source` without the names that match `patterns`."""

    def __init__(self, source: str, patterns: list[str]) -> None:
        super().__init__(source)
        self._patterns = [os.fsencode(pattern) for pattern in patterns]

    def hides(self, name: bytes) -> bool:
        """Return whether to hide a name; "." and ".." always show."""
        if name in (b".", b".."):
            return False
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Look a name up; a hidden one is ENOENT."""
        if self.hides(name):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return super().lookup(directory, name)

    def listing(self, node: Node) -> Listing:
        """List a directory without its hidden names."""
        return HidingListing(super().listing(node), self)


async def main(source: str, mountpoint: str, patterns: list[str]) -> None:
    tree = HidingMirror(source, patterns)
    # Open it before the mount, so that an early Ctrl-C also unmounts.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{source} is mounted on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
