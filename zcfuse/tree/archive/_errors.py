"""What can be wrong with an archive as a whole, or with its kept index, in messages of one line."""

from __future__ import annotations

import errno

SHOWN_NAME_BYTES = 200


class ArchiveError(Exception):
    """An archive that cannot be indexed. The message is one line: archive, reason, remedy."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(f"{shown(path)}: {one_line(reason)}")


class StaleIndexError(Exception):
    """A kept index that is not to be used: of another archive, another version, or damaged."""


class DamagedIndexError(OSError):
    """A kept index that turned out to be damaged while it was in use; EIO to the client."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.EIO, f"the kept index is damaged: {reason}", path)


def shown(name: bytes) -> str:
    """Return a name as it may stand in a message: one line, printable, not too long."""
    text = one_line(name[: SHOWN_NAME_BYTES + 1].decode("utf-8", "backslashreplace"))
    return text if len(name) <= SHOWN_NAME_BYTES else text[:SHOWN_NAME_BYTES] + "..."


def one_line(text: str) -> str:
    """Return `text` with what would break the line, or drive a terminal, written as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
