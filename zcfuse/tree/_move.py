"""Moving the bytes of a file that a `Dir` holds to another place, without a change of its names."""

from __future__ import annotations

import os
import stat

import msgspec

from zcfuse.tree._content import File
from zcfuse.tree._dir import Dir
from zcfuse.tree._entry import PathLike


def move_file(top: Dir, path: str, to: PathLike) -> None:
    """Have the `File` at `path` below a Dir be the file `to`, with the attributes that it showed.

    `Mount.move` says what the caller vouches for.

    Raises:
        FileNotFoundError: there is no such entry, or no file of it or at `to`.
        TypeError: the entry is no File, or one on the way is no Dir that holds its entries.
        ValueError: `to` is no regular file of the same size.
    """
    *above, name = path.strip("/").split("/")
    directory = top
    for depth, part in enumerate(above, 1):
        content = directory.get(part)
        if content is None:
            raise FileNotFoundError(f"{path!r}: there is no {'/'.join(above[:depth])!r}")
        if not isinstance(content, Dir):
            raise TypeError(
                f"{path!r} leads through {content!r}: only a File that a Dir holds can be moved"
            )
        directory = content
    entry = directory.get(name)
    if entry is None:
        raise FileNotFoundError(f"{path!r}: there is no such entry")
    if type(entry) is not File or name not in directory:
        raise TypeError(f"{path!r}: only a File that a Dir holds can be moved, not {entry!r}")
    directory.replace(name, _moved(entry, path, to))


def _moved(entry: File, path: str, to: PathLike) -> File:
    before, after = os.stat(entry.file), os.stat(to)
    if not stat.S_ISREG(after.st_mode):
        raise ValueError(f"{os.fsdecode(to)!r} is no regular file")
    if before.st_size != after.st_size:
        raise ValueError(
            f"{path!r} has {before.st_size:,} bytes and {os.fsdecode(to)!r} has {after.st_size:,}"
        )
    shown = entry.overrides
    moved = File(to)
    moved._overrides = msgspec.structs.replace(
        shown,
        mode=before.st_mode & 0o777 if shown.mode is None else shown.mode,
        mtime_ns=before.st_mtime_ns if shown.mtime_ns is None else shown.mtime_ns,
    )
    return moved
