"""Answers of a policy that hold for a while."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from zcfuse.arguments import require_type
from zcfuse.tree._content import content_of

if TYPE_CHECKING:
    from zcfuse.tree._dir import Held
    from zcfuse.tree._entry import Content

_LONGEST_S: Final = 10 * 365 * 86_400.0


class AnswerLease:
    """For how long and for whom an answer of a policy holds."""

    __slots__ = ("for_everyone", "valid_for")

    def __init__(self, valid_for: float | None, for_everyone: bool) -> None:
        if valid_for is not None and not (
            isinstance(valid_for, int | float) and math.isfinite(valid_for) and valid_for > 0
        ):
            raise ValueError(f"valid_for: give seconds above 0, or None, not {valid_for!r}")
        require_type("for_everyone", for_everyone, bool, "True or False")
        self.valid_for = None if valid_for is None else min(float(valid_for), _LONGEST_S)
        self.for_everyone = for_everyone

    def _holds(self) -> str:
        until = "changed()" if self.valid_for is None else f"{self.valid_for:g} s"
        whom = "everyone" if self.for_everyone else "one user"
        return f"for {whom}, until {until}"


class Leased(AnswerLease):
    """An answer of `Dir.lookup` that holds for a while, in a class with ``leases = True``.

    Until it ends the mount does not ask the policy again. The data path gives it without an upcall:
    that the name is missing, attributes, opens, and everything below a static `Dir`. An entry that
    only Python can serve still costs an upcall.

    The kernel may reuse an answer for everyone for up to the mount's cache timeout after its end,
    but not after ``changed(name)``. It reuses none that is for one user.

    Parameters:
        entry: the meaning of the name, as `lookup` returns it without a lease; None: it is missing.
            A mount keeps the last 65,536 answers that a name is missing.
        valid_for: seconds; None: until the program calls ``changed(name)`` on the directory.
        for_everyone: whether every user gets this answer; otherwise it holds for the asking uid.

    Raises:
        TypeError: `entry` is neither an entry nor a tree nor a path.
        ValueError: `valid_for` is not a positive number.
    """

    __slots__ = ("entry",)

    def __init__(
        self, entry: Held | None, *, valid_for: float | None = None, for_everyone: bool = False
    ) -> None:
        super().__init__(valid_for, for_everyone)
        try:
            self.entry: Content | None = None if entry is None else content_of(entry)
        except TypeError as error:
            raise TypeError(f"entry: {error}") from None

    def __repr__(self) -> str:
        what = "no entry" if self.entry is None else repr(self.entry)
        return f"<{what} {self._holds()}>"


class LeasedNames(AnswerLease):
    """An answer of `Dir.list` that holds for a while, in a class with ``leases = True``.

    Until it ends the data path lists the directory without an upcall. It also ends when the program
    calls ``changed(name)`` for any name, or ``changed()``.

    Parameters:
        names: what `list` returns without a lease. The entries of a mapping are leased with it;
            names alone are looked up once, and their answers hold as `lookup` says.
        valid_for: seconds; None: until the program calls ``changed`` on the directory.
        for_everyone: whether every user gets these names; otherwise they hold for the asking uid.
        complete: whether all other names are missing. The data path then says so itself.

    Raises:
        TypeError: an argument has another type.
        ValueError: `valid_for` is not a positive number.
    """

    __slots__ = ("complete", "names")

    def __init__(
        self,
        names: Iterable[str] | Mapping[str, Held],
        *,
        valid_for: float | None = None,
        for_everyone: bool = False,
        complete: bool = False,
    ) -> None:
        super().__init__(valid_for, for_everyone)
        require_type("names", names, Iterable, "names, or a mapping from names to entries")
        if isinstance(names, str | bytes):
            raise TypeError(f"names: give names, or a mapping from names to entries, not {names!r}")
        require_type("complete", complete, bool, "True or False")
        self.names = names
        self.complete = complete

    def __repr__(self) -> str:
        what = "all names" if self.complete else "names"
        return f"<{what} {self._holds()}>"
