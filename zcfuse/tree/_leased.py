"""Answers of a policy that hold for a while."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from zcfuse.arguments import require_type
from zcfuse.tree._content import content_of

if TYPE_CHECKING:
    from zcfuse.tree._dir import Held
    from zcfuse.tree._entry import Content

_LONGEST_S: Final = 10 * 365 * 86_400.0


class Leased:
    """An answer of `Dir.lookup` that holds for a while, in a class with ``leases = True``.

    Until it ends the mount does not ask the policy again. If the answer holds for everyone, the
    data path gives it without an upcall: attributes, opens and everything below a static `Dir`.
    An answer for one user, and an entry that only Python can serve, still cost an upcall.

    The kernel may reuse an answer for up to the mount's cache timeout after its end, but not after
    ``changed(name)``.

    Parameters:
        entry: the meaning of the name, as `lookup` returns it without a lease.
        valid_for: seconds; None: until the program calls ``changed(name)`` on the directory.
        for_everyone: whether every user gets this answer; otherwise it holds for the asking uid.

    Raises:
        TypeError: `entry` is neither an entry nor a tree nor a path.
        ValueError: `valid_for` is not a positive number.
    """

    __slots__ = ("entry", "for_everyone", "valid_for")

    def __init__(
        self, entry: Held, *, valid_for: float | None = None, for_everyone: bool = False
    ) -> None:
        if valid_for is not None and not (
            isinstance(valid_for, int | float) and math.isfinite(valid_for) and valid_for > 0
        ):
            raise ValueError(f"valid_for: give seconds above 0, or None, not {valid_for!r}")
        require_type("for_everyone", for_everyone, bool, "True or False")
        try:
            self.entry: Content = content_of(entry)
        except TypeError as error:
            raise TypeError(f"entry: {error}") from None
        self.valid_for = None if valid_for is None else min(float(valid_for), _LONGEST_S)
        self.for_everyone = for_everyone

    def __repr__(self) -> str:
        until = "changed()" if self.valid_for is None else f"{self.valid_for:g} s"
        whom = "everyone" if self.for_everyone else "one user"
        return f"<{self.entry!r} for {whom}, until {until}>"
