"""Text for people: names that others chose, without what could drive a terminal or forge a row.

Everything that zcfuse prints or logs passes through `escaped`. JSON does not: it has its own
escapes, and programs need the exact text.
"""

from __future__ import annotations

from typing import Final

_SURROGATES: Final = range(0xDC80, 0xDD00)
"""Bytes that are not UTF-8, as os.fsdecode() returns them."""


def escaped(text: str | bytes) -> str:
    """Return text with each character that is not printable as an escape, such as ``\\\\x1b``.

    The result is one line and can be encoded as UTF-8. Bytes that are not UTF-8 become ``\\\\xNN``.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if code in _SURROGATES else ascii(character)[1:-1]
