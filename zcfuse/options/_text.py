"""Values of options as text: sizes, addresses, and several options in one text."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_OPTION: Final = re.compile(r'(?:[^",]|"[^"]*"|")+')
_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "[::1]": "::1"}
_LAST_PORT: Final = 65535
_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(text: str) -> int:
    """Read a size in bytes: ``65536``, ``64K``, ``64M``, ``1.5GiB``; units are powers of 1024.

    Raises:
        ValueError: the text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a size: write bytes, or a number with K, M, G or T, as in 64M"
        )
    number, unit = match.groups()
    return (
        int(float(number) * (1 << _UNITS[unit.upper()]))
        if "." in number
        else int(number) << _UNITS[unit.upper()]
    )


def split_options(text: str) -> list[str]:
    """Split the text of ``-o`` at commas outside of double quotes, and drop the quotes.

    mount(8) reads it in the same way: ``ro,layer="/a,b"``.
    """
    options = (part.replace('"', "").strip() for part in _OPTION.findall(text))
    return [option for option in options if option]


def parse_listen(text: str) -> tuple[str, int]:
    """Read an address: ``PORT``, ``127.0.0.1:PORT``, ``localhost:PORT`` or ``[::1]:PORT``.

    Returns:
        The loopback address and the port.

    Raises:
        ValueError: the text is not an address of the loopback interface.
    """
    host, colon, port = text.rpartition(":")
    address = _LOOPBACK.get(host if colon else "127.0.0.1")
    if address is None:
        raise ValueError("not a loopback address; give PORT, 127.0.0.1:PORT or [::1]:PORT")
    if not (port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise ValueError(f"give a port from 1 to {_LAST_PORT}, or 0 for one that is free")
    return address, int(port)
