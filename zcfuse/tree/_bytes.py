"""Files whose bytes a program gives, kept where they can be served like any file's."""

from __future__ import annotations

import hashlib
import time
from typing import Final, Unpack

from zcfuse.tree._arena import Arena, MemoryPlace
from zcfuse.tree._content import Blob
from zcfuse.tree._entry import Given, attributes_key
from zcfuse.tree._sources import Run, Runs, Source, Sources

_ARENA: Final = Arena()
_DIGEST_BYTES: Final = 16


class Bytes(Blob):
    """A file that holds `data`.

    The data are copied once, into sealed memory of the process that outlives neither the entry nor
    those who have the file open; small ones share a descriptor, so that there may be any number.

    Parameters:
        data: bytes, or anything that has the buffer interface.
        attributes: mode (0o444), uid, gid, mtime (when the entry was made) and path, as `Entry` has
            them.

    Raises:
        TypeError: `data` is text (encode it) or has no buffer.
        OSError: there is no memory or no descriptor for it.
    """

    __slots__ = ("_digest", "_place", "created_ns", "size")

    def __init__(
        self,
        data: bytes | bytearray | memoryview,
        /,
        **attributes: Unpack[Given],
    ) -> None:
        super().__init__(**attributes)
        if isinstance(data, str):
            raise TypeError("data must be bytes, not text: encode it")
        try:
            whole = memoryview(data)
        except TypeError:
            raise TypeError(f"data must be bytes, not {data!r}") from None
        with whole as given, given.cast("B") as view:
            self.size = view.nbytes
            self._digest = hashlib.blake2b(view, digest_size=_DIGEST_BYTES).digest()
            self._place = _ARENA.place(view)
        self.created_ns = time.time_ns()

    @property
    def place(self) -> MemoryPlace:
        """Where the data lie."""
        return self._place

    def runs(self, sources: Sources) -> Runs:
        """Return the place in memory."""
        place = self._place
        source = Source(place.memory.fd, place.offset + self.size, owner=place.memory)
        return Runs((Run(source, place.offset, self.size, open_ended=place.whole),))

    def key(self) -> object:
        """Return a digest of the data, and the attributes."""
        return "bytes", self.size, self._digest, attributes_key(self)

    def describe(self) -> str:
        """Return how many bytes it has."""
        return f"Bytes: {self.size:,} bytes in the daemon's memory"
