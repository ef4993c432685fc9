"""``dump.py ROOT NAME...``: everything that a client can see below a directory, as one literal.

By path: the result of lstat, the bytes or the target, the extended attributes; or the name of the
errno. It also looks up each NAME that a directory does not list. Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from typing import Any


def described(path: bytes) -> dict[str, Any]:
    """Everything visible of one file, or an errno."""
    status = os.lstat(path)
    found: dict[str, Any] = {
        "mode": oct(status.st_mode),
        "ino": status.st_ino,
        "nlink": status.st_nlink,
        "owner": (status.st_uid, status.st_gid),
        "rdev": status.st_rdev,
        "times": (status.st_mtime_ns, status.st_ctime_ns),
        "blocks": status.st_blocks,
    }
    if not stat.S_ISDIR(status.st_mode):
        found["size"] = status.st_size
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            found["bytes"] = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        found["target"] = os.readlink(path)
    if not stat.S_ISFIFO(status.st_mode):
        names = os.listxattr(path, follow_symlinks=False)
        found["xattrs"] = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)
        }
    return found


def dump(root: bytes, names: list[bytes]) -> dict[bytes, Any]:
    """Everything below `root`."""
    found: dict[bytes, Any] = {}
    left = [b""]
    while left:
        at = left.pop()
        path = os.path.join(root, at) if at else root
        try:
            found[at] = described(path)
            if stat.S_ISDIR(int(found[at]["mode"], 8)):
                listed = sorted(os.listdir(path))
                found[at]["names"] = listed
                found[at]["types"] = types(path)
                left += [os.path.join(at, name) for name in {*listed, *names}]
        except OSError as error:
            found[at] = errno.errorcode[error.errno or 0]
    return found


def types(path: bytes) -> dict[bytes, int]:
    """The types in the listing, of entries that lstat can read."""
    with os.scandir(path) as entries:
        return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}


if __name__ == "__main__":
    print(dump(os.fsencode(sys.argv[1]), [os.fsencode(name) for name in sys.argv[2:]]))
