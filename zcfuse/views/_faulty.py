"""A file that fails or is slow, to see what a program makes of it."""

from __future__ import annotations

import os
from typing import Unpack

import trio

from zcfuse.arguments import require_number, require_path, require_type
from zcfuse.tree import Computed, Given


def faulty(
    path: str | os.PathLike[str],
    /,
    *,
    error: int | None = None,
    delay: float = 0.0,
    range: tuple[int, int] | None = None,
    **attributes: Unpack[Given],
) -> Computed:
    """Return a file with the bytes of another one, of which some reads fail or are late.

    Every read is an upcall, past the page cache, so a client meets the fault at each read. The
    kernel may ask for more than the client did, up to whole pages.

    Parameters:
        path: the file with the bytes, whose size is taken now.
        error: the errno that a read of the range gets, such as ``errno.EIO``; None: it succeeds.
        delay: for how long such a read is held before its answer, in seconds.
        range: the bytes concerned, from the first to behind the last; None: the whole file.
        attributes: mode, uid, gid and mtime, as `Entry` has them.

    Raises:
        OSError: the file cannot be looked at.
        ValueError: the delay is negative, or the range has no order.
    """
    require_path("path", path)
    require_type("error", error, int | None, "an errno or None")
    require_number("delay", delay, "seconds")
    require_type("range", range, tuple | None, "two offsets")
    size = os.stat(path).st_size
    first, end = (0, size) if range is None else range
    if delay < 0:
        raise ValueError(f"delay={delay}: give seconds, 0 or more")
    if not 0 <= first <= end:
        raise ValueError(f"range={range!r}: give the first byte and that behind the last")

    async def read(offset: int, length: int) -> bytes:
        if offset < end and first < offset + length:
            await trio.sleep(delay)
            if error is not None:
                raise OSError(error, os.strerror(error))
        return await trio.to_thread.run_sync(_read, path, offset, length)

    return Computed(size, read, **attributes)


def _read(path: str | os.PathLike[str], offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)
