"""Errors for arguments of the wrong type, which name the argument."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

PATHS: Final = (str, bytes, os.PathLike)
"""The types of paths."""


def require_type(name: str, value: object, types: Any, wanted: str) -> None:  # noqa: ANN401
    """Raise TypeError unless `value` is an instance of `types`, which `wanted` describes.

    `types` is what isinstance takes, a union too.
    """
    if not isinstance(value, types):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")


def require_path(name: str, value: object) -> None:
    """Raise TypeError where the argument `name` is no path."""
    require_type(name, value, PATHS, "a path")


def require_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise ValueError unless `value` is one of those allowed."""
    if value not in allowed:
        wanted = " or ".join(map(repr, allowed))
        raise ValueError(f"{name} must be {wanted}, not {value!r}")


def require_number(name: str, value: object, wanted: str = "a number") -> None:
    """Raise TypeError where the argument `name` is no number."""
    require_type(name, value, (int, float), wanted)


def require_call(name: str, value: object, wanted: str = "a function") -> None:
    """Raise TypeError where the argument `name` cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be {wanted}, not {value!r}")
