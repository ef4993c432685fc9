"""A daemon's counts, for tests: the serving paths and the reasons for fallbacks."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.support import Daemon
from tests.support import eventually as eventually
from zcfuse.admin.status import read_status


class Counts:
    """A status document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.control: dict[str, Any] = document["control"]
        self.datapath: dict[str, Any] = document["datapath"] or {}
        self.fallbacks: dict[str, int] = self.datapath.get("fallbacks", {})
        self.opens: dict[str, int] = self.datapath.get("opens", {})

    @property
    def reads(self) -> int:
        """READ requests by every path."""
        if self.datapath:
            return int(self.datapath["requests"].get("READ", 0))
        return int(self.control["upcalls"].get("read", 0))

    def request(self, name: str) -> int:
        """Requests of one operation, as the data path saw them."""
        return int(self.datapath["requests"].get(name, 0))

    def served(self, path: str) -> int:
        """READ requests that were served by this path."""
        if path == "naive":
            return 0 if self.datapath else int(self.control["read_requests"])
        return int(self.datapath["paths"][path]["requests"])

    def paths(self) -> dict[str, int]:
        """READ requests by serving path, without zeros."""
        if not self.datapath:
            return {"naive": self.served("naive")}
        return {name: self.served(name) for name in self.datapath["paths"] if self.served(name)}

    def reason(self, words: str) -> int:
        """The count of reasons with these words."""
        return sum(n for reason, n in self.fallbacks.items() if words in reason)


def counts(daemon: Daemon) -> Counts:
    """Ask the daemon for its status."""
    if daemon.user is not None:
        return Counts(daemon.status())
    return Counts(msgspec.to_builtins(read_status(daemon.mountpoint)))
