"""Another directory for each user, under one path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from zcfuse.arguments import require_type
from zcfuse.tree import Content, Dir, Leased, LeasedNames, Who


class _ByUser(Dir):
    """A dynamic directory: each client gets the names of the Dir chosen for it."""

    __slots__ = ("_choose",)

    def __init__(self, choose: Callable[[Who], Dir | None]) -> None:
        super().__init__()
        self._choose = choose

    def __repr__(self) -> str:
        return "<Dir by user>"

    async def lookup(self, name: str, who: Who) -> Content | Leased | None:
        """Look the name up in the client's Dir."""
        chosen = self._choose(who)
        found = None if chosen is None else await chosen.lookup(name, who)
        return found.entry if isinstance(found, Leased) else found

    async def list(self, who: Who) -> Iterable[str] | LeasedNames:
        """List the client's Dir."""
        chosen = self._choose(who)
        found = () if chosen is None else await chosen.list(who)
        return found.names if isinstance(found, LeasedNames) else found


class _ByUid(_ByUser):
    """The same where the uid alone decides: the data path keeps each user's answers."""

    __slots__ = ("_changes",)

    leases = True

    def __init__(self, by_uid: Mapping[int, Dir], default: Dir | None) -> None:
        super().__init__(lambda who: by_uid.get(who.uid, default))
        self._changes = _Changes(self)
        for chosen in (*by_uid.values(), *([] if default is None else [default])):
            chosen.show(self._changes)

    async def lookup(self, name: str, who: Who) -> Content | Leased | None:
        """Look the name up in the client's Dir; its answer holds until the Dir changes."""
        chosen = self._choose(who)
        if chosen is None or chosen.by_value:
            return Leased(None if chosen is None else chosen.get(name))
        found = await chosen.lookup(name, who)
        return (
            Leased(found.entry, valid_for=found.valid_for) if isinstance(found, Leased) else found
        )

    async def list(self, who: Who) -> Iterable[str] | LeasedNames:
        """List the client's Dir, with its entries."""
        chosen = self._choose(who)
        if chosen is not None and not chosen.by_value:
            return await super().list(who)
        names = () if chosen is None else chosen.names()
        held = ((os.fsdecode(name), chosen and chosen.get(name)) for name in names)
        return LeasedNames({name: entry for name, entry in held if entry}, complete=True)


class _Changes:
    """Ends a view's answers when a Dir that it shows changes."""

    def __init__(self, view: Dir) -> None:
        self._view = view

    def name_changed(self, name: bytes) -> None:
        """End what the view answered for a name, or its listings."""
        self._view.changed(*([name] if name else []))


def by_user(
    choose: Mapping[int, Dir] | Callable[[Who], Dir | None], default: Dir | None = None
) -> Dir:
    """Return a Dir that is another one for each user. Mount it with ``allow_other=True``.

    Parameters:
        choose: the Dir of each uid, or a function that returns that of a client (`Who`), None for
            an empty directory.
        default: what users see that a mapping does not name; None: an empty directory.

    With a mapping, the data path answers once Python was asked for a user. With a function, every
    lookup and listing in this directory asks Python. The directories below are cached as
    theirs say. Names hide files here; they protect none: give files a `mode` and owner as well.
    """
    require_type("default", default, Dir | None, "a Dir or None")
    if callable(choose):
        return _ByUser(choose)
    require_type("choose", choose, Mapping, "a mapping from uids or a function")
    return _ByUid(dict(choose), default)
