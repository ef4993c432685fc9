"""What is wrong with a manifest: where, which field, and why, in one line."""

from __future__ import annotations

from zcfuse.text import escaped


class ManifestError(ValueError):
    """A manifest that cannot be used.

    Attributes:
        manifest: the file, as the caller named it.
        line: counted from 1; 0 where no line is to blame.
        field: such as ``offset`` or ``parts[2].file``; empty where no field is to blame.
        reason: what is wrong with it.
    """

    def __init__(self, manifest: str, line: int, field: str, reason: str) -> None:
        places = [manifest, f"line {line}" if line else "", field, escaped(reason)]
        super().__init__(": ".join(place for place in places if place))
        self.manifest = manifest
        self.line = line
        self.field = field
        self.reason = reason


class Problem(Exception):  # noqa: N818 - no error of its own: a ManifestError is made of it
    """Something wrong with a node, said by whoever does not know lines.

    `position` is the node's, as its reader counts, or -1 for the one being added. `other` is the
    position of a node that it contradicts, or -1.
    """

    def __init__(self, field: str, reason: str, *, position: int = -1, other: int = -1) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
        self.position = position
        self.other = other
