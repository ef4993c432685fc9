"""Errors of a manifest: the place, the field and the reason, in one line."""

from __future__ import annotations

from zcfuse.text import escaped


class ManifestError(ValueError):
    """An invalid manifest.

    Attributes:
        manifest: the file, as the caller named it.
        line: counted from 1; 0 if the error has no line.
        field: such as ``offset`` or ``parts[2].file``; empty if the error has no field.
        reason: the error.
    """

    def __init__(self, manifest: str, line: int, field: str, reason: str) -> None:
        places = [manifest, f"line {line}" if line else "", field, escaped(reason)]
        super().__init__(": ".join(place for place in places if place))
        self.manifest = manifest
        self.line = line
        self.field = field
        self.reason = reason


class Problem(Exception):  # noqa: N818 - the caller makes a ManifestError of it
    """An error in a node, from code without line numbers.

    `position` is the node's position by its reader's count, or -1 for the one being added. `other`
    is the position of a contradicting node, or -1.
    """

    def __init__(self, field: str, reason: str, *, position: int = -1, other: int = -1) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.position = position
        self.other = other
