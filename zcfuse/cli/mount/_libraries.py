"""Remedies for a library of the daemon that cannot be loaded."""

from __future__ import annotations

from zcfuse.text import escaped


def library_trouble(error: ImportError) -> str:
    """Return one line about a failed import: the missing library and the remedy."""
    text = escaped(str(error))
    if "libfuse3" in text:
        return "libfuse3 is not installed: install the package libfuse3-3 (Debian 13: libfuse3-4)"
    return f"the daemon cannot be loaded: {text}: install zcfuse again with pip"
