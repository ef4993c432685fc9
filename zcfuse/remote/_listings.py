"""One listing of a directory of a server: its names, its age, and the request for the rest of it.

Belongs to the thread of `Remote`; only `ListRequest` also works in the thread that receives pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from zcfuse.remote._fetchers import Answer, Parts
from zcfuse.remote._messages import Info, Listed, Page
from zcfuse.remote._names import NameTable

# Names of one transaction: other threads wait for it.
_ADDED_AT_ONCE: Final = 1000


class Names:
    """A listing that is kept, when it was fetched, and when that was last tried.

    `missing` are names that the server was asked for, and `sized` says that it was asked for all
    sizes. `growing` is the request whose further pages are missing, None for a complete listing;
    until then `whole` is False, so that the server is asked for other names. `counted` of its names
    are in the sum of all listings. Its age counts from their arrival, even if they waited here.
    """

    __slots__ = (
        *("by_name", "counted", "earlier", "fetched_s", "growing", "left_out", "missing"),
        *("sized", "tried_s", "whole"),
    )

    def __init__(
        self, request: ListRequest, listed: Listed, before: Names | None, *, sized: bool
    ) -> None:
        self.by_name = request.table
        self.counted = len(request.table)
        self.growing: ListRequest | None = None
        self.left_out = listed.left_out
        self.whole = listed.whole
        self.missing: set[bytes] = set()
        self.sized = sized or not any(map(lacks_size, listed.entries))
        self.fetched_s = self.tried_s = request.came_s
        # Facts that this listing lacks, for the time when the server is away.
        lacking = (info.name for info in listed.entries if lacks_size(info))
        found = () if before is None else map(before.sized_fact, lacking)
        self.earlier = {info.name: info for info in found if info is not None}

    def sized_fact(self, name: bytes) -> Info | None:
        """Return facts of a name, now or earlier, that have the size."""
        info = self.by_name.get(name)
        return self.earlier.get(name) if info is None or lacks_size(info) else info

    def grow(self, request: ListRequest, left_out: int) -> int:
        """Take over the names that the table got meanwhile; return how many are new."""
        self.left_out += left_out
        self.fetched_s = self.tried_s = request.came_s
        before, self.counted = self.counted, len(self.by_name)
        return self.counted - before


class ListRequest:
    """A listing on its way. `names` are those of its pages, `failure` is why it ended early.

    The thread that receives names puts them into `table`: nobody may take them for long, and the
    mount's thread has others to answer. `came_s` is when the last ones came.
    """

    __slots__ = ("answer", "came_s", "failure", "names", "pages", "sizes", "table")

    def __init__(self, table: NameTable, ask: Callable[[Parts[Page]], Answer], sizes: bool) -> None:
        self.table = table
        self.sizes = sizes
        self.names: Names | None = None
        self.failure: OSError | None = None
        self.came_s = time.monotonic()
        self.pages: Parts[Page] = _Pages(self._keep)
        self.answer = ask(self.pages)

    def _keep(self, entries: list[Info]) -> None:
        self.came_s = time.monotonic()
        try:
            for start in range(0, len(entries), _ADDED_AT_ONCE):
                self.table.add(entries[start : start + _ADDED_AT_ONCE])
        except OSError as error:  # of the disk
            self.failure = error


class _Pages(Parts[Page]):
    """Pages and the answer behind them, whose names `keep` gets before anybody hears of them."""

    def __init__(self, keep: Callable[[list[Info]], None]) -> None:
        super().__init__(self._emptied)
        self._keep = keep

    def end(self, answer: Answer) -> None:
        if answer.exception() is None and isinstance(reply := answer.result(), Listed):
            self._keep(reply.entries)
        super().end(answer)

    def _emptied(self, page: Page) -> Page:
        self._keep(page.entries)
        return Page(page.number, [], page.left_out)


def lacks_size(info: Info) -> bool:
    """Return whether a file's size is yet to be asked for."""
    return info.size is None and not info.is_directory
