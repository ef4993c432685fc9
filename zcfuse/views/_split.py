"""Files shared out among directories: train, val and test of a data set."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping

from zcfuse.arguments import require_type
from zcfuse.tree import Dir
from zcfuse.views._files import Files, files_of


def split(files: Files, by: Callable[[str], str | None] | Mapping[str, float]) -> Dir:
    """Return a Dir with a directory for each part, which holds the files of that part.

    Parameters:
        files: a directory, paths, or paths by name.
        by: a function that says which part a path belongs to, None for no part at all; or the share
            of each part, as ``{"train": 0.9, "val": 0.1}``. By shares, a hash of the path decides,
            so a file keeps its part when others come or go.

    Raises:
        OSError: a directory cannot be listed.
        ValueError: the shares are not positive numbers, or two files have one name.
    """
    if not callable(by):
        require_type("by", by, Mapping, "a function or a mapping of shares")
    choose = by if callable(by) else _by_shares(by)
    paths: dict[str, str] = {}
    for name, path in files_of(files).items():
        part = choose(name)
        if part is not None:
            paths[f"{part}/{name}"] = path
    return Dir.from_paths(paths)


def _by_shares(shares: Mapping[str, float]) -> Callable[[str], str]:
    whole = sum(shares.values())
    if not shares or not math.isfinite(whole) or min(shares.values()) <= 0:
        raise ValueError(f"by={dict(shares)!r}: give each part a share, more than 0")

    def choose(name: str) -> str:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        place = int.from_bytes(digest) / 2**64 * whole
        for part, share in shares.items():
            place -= share
            if place < 0:
                return part
        return part

    return choose
