"""Files with equal bytes as one backing file, so that the page cache holds them once."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

from zcfuse.tree import Dir, File
from zcfuse.views._files import Files, files_of

_DIGEST_BYTES = 32


def dedup(files: Files) -> Dir:
    """Return a Dir where files with equal bytes are served from one of them.

    Each file keeps its name, its mode and its time of modification. Reads all files of which
    another one has the same size, once, when it is called. A file that changes after that shows
    the bytes of the one that was chosen for it.

    Parameters:
        files: a directory, paths, or paths by name.

    Raises:
        OSError: a file cannot be read, or a directory cannot be listed.
        ValueError: two files of an iterable have one name.
    """
    named = files_of(files)
    chosen = dict(_chosen(dict.fromkeys(named.values())))
    return Dir.from_paths({name: _shown(path, chosen[path]) for name, path in named.items()})


def _chosen(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each path, and the first one with the same bytes."""
    by_size: defaultdict[int, list[str]] = defaultdict(list)
    for path in paths:
        by_size[os.stat(path).st_size].append(path)
    for same_size in by_size.values():
        first: dict[bytes, str] = {}
        for path in same_size:
            key = _digest(path) if len(same_size) > 1 else b""
            yield path, first.setdefault(key, path)


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES))
    return digest.digest()


def _shown(path: str, chosen: str) -> File:
    if path == chosen:
        return File(path)
    status = os.stat(path)
    return File(chosen, mode=status.st_mode & 0o777, mtime=status.st_mtime)
