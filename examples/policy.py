"""A mount that hides files: ``policy.py SOURCE MOUNTPOINT PATTERN [PATTERN...]``.

Names that match one of the patterns (as in a shell: ``*.tmp``, ``.git``) are not there: neither in
a listing nor when asked for by name. Python decides that once per name and cache timeout, and is
not asked again when the files that are left are read. Ctrl-C unmounts.
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
    """The names of another listing, without those that `mirror` hides. Offsets are the other's."""

    def __init__(self, inner: Listing, mirror: "HidingMirror") -> None:
        self._inner = inner
        self._mirror = mirror

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries that may be seen."""
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
        """Whether a name is to be hidden; "." and ".." never are."""
        if name in (b".", b".."):
            return False
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Find a name, unless it is hidden."""
        if self.hides(name):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return super().lookup(directory, name)

    def listing(self, node: Node) -> Listing:
        """List a directory without what is hidden."""
        return HidingListing(super().listing(node), self)


async def main(source: str, mountpoint: str, patterns: list[str]) -> None:
    tree = HidingMirror(source, patterns)
    # Before the mount, so that an early Ctrl-C unmounts as a late one does.
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:
            nursery.start_soon(cancel_at, signals, nursery.cancel_scope)
            print(f"{source} is mounted on {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # somebody else may unmount
            nursery.cancel_scope.cancel()


async def cancel_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:])
