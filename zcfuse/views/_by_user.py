"""Another directory for each user, under one path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zcfuse.arguments import require_type
from zcfuse.tree import Content, Dir, Leased, Who


class _ByUser(Dir):
    """A dynamic directory: each client gets the names of the Dir chosen for it."""

    __slots__ = ("_choose",)

    def __init__(self, choose: Callable[[Who], Dir | None]) -> None:
        super().__init__()
        self._choose = choose

    def __repr__(self) -> str:
        return "<Dir by user>"

    async def lookup(self, name: str, who: Who) -> Content | None:
        """Look the name up in the client's Dir."""
        chosen = self._choose(who)
        found = None if chosen is None else await chosen.lookup(name, who)
        return found.entry if isinstance(found, Leased) else found

    async def list(self, who: Who) -> Iterable[str]:
        """List the client's Dir."""
        chosen = self._choose(who)
        return () if chosen is None else await chosen.list(who)


def by_user(
    choose: Mapping[int, Dir] | Callable[[Who], Dir | None], default: Dir | None = None
) -> Dir:
    """Return a Dir that is another one for each user. Mount it with ``allow_other=True``.

    Parameters:
        choose: the Dir of each uid, or a function that returns that of a client (`Who`), None for
            an empty directory.
        default: what users see that a mapping does not name; None: an empty directory.

    Every lookup and listing in this directory asks Python. The directories below it are cached as
    theirs say. Names hide files here; they protect none: give files a `mode` and owner as well.
    """
    require_type("default", default, Dir | None, "a Dir or None")
    if callable(choose):
        return _ByUser(choose)
    require_type("choose", choose, Mapping, "a mapping from uids or a function")
    by_uid = dict(choose)
    return _ByUser(lambda who: by_uid.get(who.uid, default))
