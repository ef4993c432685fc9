"""Parts of a tree that are read from a file: archives, directories of archives, and manifests.

A mount shows them as it read them. One that pushes changes looks at them when their directories
change, and at each fence, and reads them again if their files have changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

PUSHING: Final = ("push", "strict")
"""Values of `Tree.coherence` that push changes to the kernel."""

COHERENCE: Final = ("ttl", *PUSHING, None)
"""Values of `Tree.coherence`."""


class RenewalError(Exception):
    """Why a changed file cannot be read, in one line."""


class Renewable(ABC):
    """A tree, or a `Dir`, that is read from a file."""

    __slots__ = ()

    coherence: str | None = None
    """"push" or "strict" where its changes show whatever the mount's option says, "ttl" where they
    never do; None: as the mount's option says."""

    @abstractmethod
    def watched(self) -> Collection[bytes]:
        """Return the directories whose changes may concern it, as paths that the daemon may open.

        A path may lead through an open descriptor (``/proc/self/fd``).
        """

    @abstractmethod
    def look(self) -> Callable[[], None] | None:
        """Look at the file, and read it if it has changed since the last call; in a worker thread.

        Returns:
            What shows the new contents, to be called in the mount's trio thread; None if nothing
            has changed.

        Raises:
            RenewalError: the file has changed and cannot be read. The contents stay as they are.
                The next call raises that only after a further change.
        """


@dataclass(frozen=True)
class RenewablePart:
    """A `Renewable` as a tree shows it.

    `coherence`: of the tree that decides for it. `tell` tells the kernel that it has new contents;
    None: they make the tree's root another node.
    """

    renewable: Renewable
    coherence: str | None
    tell: Callable[[], None] | None = None
