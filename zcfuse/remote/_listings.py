"""One listing of a directory of a server: its names, its age, and the request for the rest of it.

Belongs to the thread of `Remote`; only `ListRequest` also works in the thread that receives pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zcfuse.remote._fetchers import Answer, Parts
from zcfuse.remote._messages import Info, Listed, Page
from zcfuse.remote._names import NameTable


class Names:
    """A listing that is kept, when it was fetched, and when that was last tried.

    `missing` are names that the server was asked for, and `sized` says that it was asked for all
    sizes. `growing` is the request whose further pages are missing, None for a complete listing;
    until then `whole` is False, so that the server is asked for other names. `counted` of its names
    are in the sum of all listings.
    """

    __slots__ = (
        *("by_name", "counted", "earlier", "fetched_s", "growing", "left_out", "missing"),
        *("sized", "tried_s", "whole"),
    )

    def __init__(
        self, table: NameTable, listed: Listed, before: Names | None, *, sized: bool
    ) -> None:
        table.add(listed.entries)
        self.by_name = table
        self.counted = len(table)
        self.growing: ListRequest | None = None
        self.left_out = listed.left_out
        self.whole = listed.whole
        self.missing: set[bytes] = set()
        self.sized = sized or not any(map(lacks_size, listed.entries))
        self.fetched_s = self.tried_s = time.monotonic()
        # Facts that this listing lacks, for the time when the server is away.
        lacking = (info.name for info in listed.entries if lacks_size(info))
        found = () if before is None else map(before.sized_fact, lacking)
        self.earlier = {info.name: info for info in found if info is not None}

    def sized_fact(self, name: bytes) -> Info | None:
        """Return facts of a name, now or earlier, that have the size."""
        info = self.by_name.get(name)
        return self.earlier.get(name) if info is None or lacks_size(info) else info

    def add(self, entries: list[Info], left_out: int) -> int:
        """Add names, and those that the table got meanwhile; return how many are new."""
        self.by_name.add(entries)
        self.left_out += left_out
        self.fetched_s = self.tried_s = time.monotonic()
        before, self.counted = self.counted, len(self.by_name)
        return self.counted - before


class ListRequest:
    """A listing on its way. `names` are those of its pages, `failure` is why it ended early.

    The thread that receives a page puts its names into `table`: nobody may take them for long.
    """

    __slots__ = ("answer", "failure", "names", "pages", "sizes", "table")

    def __init__(self, table: NameTable, ask: Callable[[Parts[Page]], Answer], sizes: bool) -> None:
        self.table = table
        self.sizes = sizes
        self.names: Names | None = None
        self.failure: OSError | None = None
        self.pages = Parts(self._kept)
        self.answer = ask(self.pages)

    def _kept(self, page: Page) -> Page:
        try:
            self.table.add(page.entries)
        except OSError as error:  # of the disk
            self.failure = error
        return Page(page.number, [], page.left_out)


def lacks_size(info: Info) -> bool:
    """Return whether a file's size is yet to be asked for."""
    return info.size is None and not info.is_directory
