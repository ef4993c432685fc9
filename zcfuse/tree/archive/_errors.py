"""Errors of a whole archive or its kept index, as messages of one line."""

from __future__ import annotations

import errno

from zcfuse.text import escaped

SHOWN_NAME_BYTES = 200


class ArchiveError(Exception):
    """An archive that cannot be indexed. The message is one line: archive, reason, remedy.

    `salvageable` says whether `salvage` would show members before the damage.
    """

    def __init__(self, path: bytes, reason: str, *, salvageable: bool = False) -> None:
        super().__init__(f"{shown(path)}: {escaped(reason)}")
        self.reason = escaped(reason)
        self.salvageable = salvageable


class NotAnArchiveError(ArchiveError):
    """A file that is neither a tar nor a zip archive, or one that is `compressed` as a whole."""

    def __init__(self, path: bytes, reason: str, *, compressed: bool = False) -> None:
        super().__init__(path, reason)
        self.compressed = compressed


class StaleIndexError(Exception):
    """An unusable kept index: of another archive or version, or damaged."""


class DamagedIndexError(OSError):
    """A kept index found damaged during use; EIO to the client."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EIO, f"the kept index is damaged: {reason}", path)


def shown(name: bytes) -> str:
    """Return a name for a message: one line, printable, of limited length."""
    text = escaped(name[: SHOWN_NAME_BYTES + 1])
    return text if len(name) <= SHOWN_NAME_BYTES else text[:SHOWN_NAME_BYTES] + "..."


def printable(name: bytes) -> str:
    """Return a name as exact text for a report, which is JSON; invalid UTF-8 as escapes."""
    return name.decode("utf-8", "backslashreplace")
