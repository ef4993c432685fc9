"""Reads the entries of a listing for a reply, wherever the tree has to look for them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Final, TypeAlias

from zcfuse.fuse._far import FarCalls
from zcfuse.tree import (
    Answer,
    Attributes,
    FarError,
    Listing,
    Node,
    NotYetError,
    fresh_since,
    near_only,
)

# Entries that a worker thread looks at before the reply is asked whether it has room for them.
_FAR_ENTRIES: Final = 64

_Entry: TypeAlias = tuple[int, bytes, Node, Attributes]


async def entries_of(
    listing: Listing,
    start: int,
    made_s: float,
    far: FarCalls,
    answered: Callable[[Answer[None]], Awaitable[None]],
) -> AsyncGenerator[_Entry, None]:
    """Yield a listing's entries as `Listing.entries` does.

    Parameters:
        listing: of the directory.
        start: the offset of the entry before the first one to yield.
        made_s: when the listing was made, in seconds; answers of that time are good enough.
        far: makes the calls to filesystems that may not answer.
        answered: waits a bounded time for an answer that the tree does not have yet.
    """
    while True:
        entries = listing.entries(start)
        try:
            while True:
                with near_only, fresh_since(made_s):
                    found = next(entries, None)
                if found is None:
                    return
                yield found
                start = found[0]
        except FarError as error:
            mount = error.mount
        except NotYetError as error:
            missing: Answer[None] = error.wait()
            await answered(missing)
            continue
        finally:
            _close(entries)
        with fresh_since(made_s):
            batch = await far.run(mount, functools.partial(_some_entries, listing, start))
        for found in batch:
            yield found
            start = found[0]
        if len(batch) < _FAR_ENTRIES:
            return


def _some_entries(listing: Listing, start: int) -> list[_Entry]:
    entries = listing.entries(start)
    try:
        return list(itertools.islice(entries, _FAR_ENTRIES))
    finally:
        _close(entries)


def _close(entries: object) -> None:
    if isinstance(entries, Generator):
        entries.close()
