"""Checks a member's extended headers before tarfile reads them.

tarfile trusts their sizes and searches them with patterns of quadratic time in a run of digits.
This module refuses headers that no archiver writes, in one pass.
"""

from __future__ import annotations

import re
import tarfile
from decimal import Decimal
from typing import Any, Final, cast

from zcfuse.tree.archive._limits import DIGITS, EXTENDED_HEADERS, TAR_HEADER
from zcfuse.tree.archive._members import clamp_ns
from zcfuse.tree.archive._reader import TarReader

_PAX_TYPES: Final = b"xgX"
_EXTENDED_TYPES: Final = _PAX_TYPES + b"LK"
_TYPE: Final = 156
_SIZE: Final = slice(124, 136)

_DIGITS: Final = re.compile(rb"[0-9]{%d}" % (DIGITS + 1))
_SECONDS: Final = re.compile(r"[+-]?[0-9]{1,19}(\.[0-9]{0,100})?")


def check_extended(reader: TarReader, offset: int) -> None:
    """Raise HeaderError unless the extended headers at `offset` are safe to parse."""
    for _ in range(EXTENDED_HEADERS):
        reader.seek(offset)
        block = reader.read(tarfile.BLOCKSIZE)
        kind = block[_TYPE : _TYPE + 1]
        if not kind or kind not in _EXTENDED_TYPES:
            return
        size: int = cast(Any, tarfile).nti(block[_SIZE])
        if not 0 <= size <= TAR_HEADER:
            raise tarfile.HeaderError(f"an extended header of {size} bytes, not 0 to {TAR_HEADER}")
        if kind in _PAX_TYPES and _DIGITS.search(reader.read(size)):
            raise tarfile.HeaderError(f"a number of more than {DIGITS} digits")
        offset += tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    raise tarfile.HeaderError(f"one member has more than {EXTENDED_HEADERS} extended headers")


def nanoseconds(seconds: str | float) -> int:
    """Return a time from pax decimals or a numeric header; 0 for anything else."""
    text = str(seconds)
    if not _SECONDS.fullmatch(text):
        return 0
    exact = Decimal(text) * 1_000_000_000
    return clamp_ns(int(exact.to_integral_value(rounding="ROUND_FLOOR")))
