"""Public names that a package loads when a caller first uses them.

A front lists its names twice: under ``TYPE_CHECKING`` for type checkers, and as the table that it
gives to `lazy`. `scripts/imports.py` checks that the two agree.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package.

    Parameters:
        package: the ``__name__`` of the package.
        homes: the modules of the package, each with the public names that it defines.

    Raises:
        AttributeError: from the returned function, for any other name.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:  # noqa: ANN401 - the type is that of the name
        home = home_of.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(f"{package}.{home}"), name)
        setattr(sys.modules[package], name, found)  # a policy may use the name on each lookup
        return found

    return find
