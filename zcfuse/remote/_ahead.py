"""How far ahead of its readers one file is fetched. Pure; belongs to the trio thread of a mount.

A reader that goes on in order is fetched ahead of by four times what it has read so far, at most a
block. Once it has read a block, that is eight times what it has read, up to a block for each
connection and half as many that are being written. So fetches grow as the reader proves to be
sequential, and then keep all connections at work.
"""

from __future__ import annotations

from typing import Final

from zcfuse.remote._cache import BLOCK_BYTES

# Bytes to fetch ahead for each byte that was read in order, before a whole block was and then.
_FIRST_RAMP: Final = 4
_RAMP: Final = 8
# The kernel sends the reads of one sequential reader a little out of order.
_NEAR_BYTES: Final = 256 << 10
_LEAST_GRAIN: Final = 512 << 10
_MOST_READERS: Final = 8


class _Reader:
    __slots__ = ("next", "run", "stride")

    def __init__(self, end: int) -> None:
        self.next = end
        self.run = 0
        self.stride = 0

    def is_near(self, size: int, offset: int, *, begins_part: bool) -> bool:
        near = max(_NEAR_BYTES, 2 * size)
        return -near <= offset - self.next <= max(near, self.stride * begins_part)


class ReadAhead:
    """Follows the readers of one file, the last few of them."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._most = 3 * connections * BLOCK_BYTES // 2
        self._readers: list[_Reader] = []  # the last one first

    def note(self, size: int, offset: int, *, begins_part: bool = False) -> tuple[int, int]:
        """Note a read; return how many bytes behind its end to fetch, and in parts of how many.

        (0, 0) where the read does not go on from an earlier one. Reads within a part that was
        fetched ahead may go unnoted, except the one that `begins_part`.
        """
        end = offset + size
        for index, reader in enumerate(self._readers):
            if reader.is_near(size, offset, begins_part=begins_part):
                self._readers.insert(0, self._readers.pop(index))
                break
        else:
            self._readers.insert(0, _Reader(end))
            del self._readers[_MOST_READERS:]
            return 0, 0
        if end <= reader.next:
            return 0, 0
        reader.run += end - reader.next
        reader.next = end
        if reader.run < BLOCK_BYTES:
            ahead = min(_FIRST_RAMP * reader.run, BLOCK_BYTES)
        else:
            ahead = min(_RAMP * reader.run, self._most)
        share = ahead // self._connections
        reader.stride = min(max(1 << share.bit_length() >> 1, _LEAST_GRAIN), BLOCK_BYTES)
        return ahead, reader.stride
