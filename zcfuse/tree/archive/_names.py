"""Turns a member's name into a path below the root of the tree, or a reason."""

from __future__ import annotations

from typing import Final

from zcfuse.datapath import NAME_BYTES
from zcfuse.tree.archive._limits import DEEPEST, LONGEST_PATH

LONGEST_TARGET: Final = 4095
"""Bytes of a symlink's target: PATH_MAX of Linux without its NUL."""

UP: Final = "its name has '..' in it"
TOO_LONG: Final = f"a part of its name is longer than {NAME_BYTES} bytes"
TOO_LONG_A_PATH: Final = f"its name is longer than {LONGEST_PATH} bytes"
TOO_DEEP: Final = f"its name has more than {DEEPEST} parts"
WITH_NUL: Final = "its name has a NUL in it"


class UnusableNameError(ValueError):
    """An impossible name; its text is the reason."""


def components(name: bytes) -> list[bytes]:
    """Return the parts of a member's name; empty for the root of the archive.

    Drops a leading slash, empty parts and ".", so the result lies below the root.
    """
    if len(name) > LONGEST_PATH:
        raise UnusableNameError(TOO_LONG_A_PATH)
    if b"\0" in name:
        raise UnusableNameError(WITH_NUL)
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UnusableNameError(UP)
    if any(len(part) > NAME_BYTES for part in parts):
        raise UnusableNameError(TOO_LONG)
    if len(parts) > DEEPEST:
        raise UnusableNameError(TOO_DEEP)
    return parts


def is_plain(part: bytes) -> bool:
    """Return whether one part of a name is valid."""
    return part not in (b"", b".", b"..") and len(part) <= NAME_BYTES and b"\0" not in part


def target_trouble(target: bytes) -> str:
    """Return why a symlink cannot have this target, or an empty string."""
    if not target:
        return "a symlink without a target"
    if len(target) > LONGEST_TARGET:
        return f"a symlink's target is longer than {LONGEST_TARGET} bytes"
    return "a symlink's target has a NUL in it" if b"\0" in target else ""
