"""Clients that change a surviving mount; each works in another directory.

A client counts errors as those of `tests.survive.client` do. It compares what it made with the
mount and with the backing tree, so it sees a change that was made twice, or not at all.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.survive.client import Client


def _own_directory(client: Client, name: str) -> tuple[str, str]:
    """Make a directory; return its path in the mount and in the backing tree."""
    path = os.path.join(client.mount, name)
    os.mkdir(path)
    return path, os.path.join(client.backing, name)


def _expect_names(client: Client, real: str, wanted: list[str]) -> None:
    client.expect(f"names of {real}", sorted(os.listdir(real)), sorted(wanted))


def change_names(client: Client) -> Callable[[], None]:
    """Make, link, rename, exchange and remove names; none may fail, or be made twice."""
    where, real = _own_directory(client, "names")

    def step() -> None:
        with client.timed("mkdir"):
            os.mkdir(f"{where}/directory")
        with client.timed("create"):
            os.close(os.open(f"{where}/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))
        with client.timed("mknod"):
            os.mknod(f"{where}/directory/node")
        with client.timed("symlink"):
            os.symlink("target", f"{where}/link")
        with client.timed("link"):
            os.link(f"{where}/file", f"{where}/second")
        _expect_names(client, real, ["directory", "file", "link", "second"])
        with client.timed("links"):
            client.expect("links", os.stat(f"{where}/second").st_nlink, 2)
        with client.timed("rename"):
            os.rename(f"{where}/file", f"{where}/moved")
        with client.timed("rename directory"):
            os.rename(f"{where}/directory", f"{where}/other")
        with client.timed("stat below"):
            client.expect("size below", os.stat(f"{where}/other/node").st_size, 0)
        with client.timed("rename over"):
            os.rename(f"{where}/link", f"{where}/moved")
        with client.timed("readlink"):
            client.expect("target", os.readlink(f"{where}/moved"), "target")
        _expect_names(client, real, ["moved", "other", "second"])
        for name in ("moved", "second", "other/node"):
            with client.timed("unlink"):
                os.unlink(f"{where}/{name}")
        with client.timed("rmdir"):
            os.rmdir(f"{where}/other")
        _expect_names(client, real, [])

    return step


def change_attributes(client: Client) -> Callable[[], None]:
    """Set and remove attributes; each is set once."""
    where, real = _own_directory(client, "attributes")
    path = f"{where}/file"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        os.setxattr(path, "user.probe", b"")
        has_xattrs = True
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        has_xattrs = False

    def step() -> None:
        mode = 0o600 | random.randrange(8)
        with client.timed("chmod"):
            os.chmod(path, mode)
            client.expect("mode", os.stat(f"{real}/file").st_mode & 0o777, mode)
        with client.timed("utime"):
            os.utime(path, ns=(10**18, 10**18 + mode))
            client.expect("mtime", os.stat(f"{real}/file").st_mtime_ns, 10**18 + mode)
        with client.timed("truncate"):
            os.truncate(path, mode)
            client.expect("size", os.stat(f"{real}/file").st_size, mode)
        if has_xattrs:
            with client.timed("setxattr"):
                os.setxattr(path, "user.one", b"value", os.XATTR_CREATE)
            with client.timed("removexattr"):
                os.removexattr(path, "user.one")

    return step


def change_bytes(client: Client) -> Callable[[], None]:
    """Write to files: held, appended to, without a name, and new ones of each step."""
    where, real = _own_directory(client, "bytes")
    held = os.open(f"{where}/held", os.O_CREAT | os.O_RDWR, 0o600)
    appended = os.open(f"{where}/appended", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nameless = os.open(f"{where}/nameless", os.O_CREAT | os.O_RDWR, 0o600)
    os.unlink(f"{where}/nameless")
    length = 0
    block = bytes(range(256)) * 64

    def step() -> None:
        nonlocal length
        start = random.randrange(1 << 16)
        for name, file in (("held", held), ("nameless", nameless)):
            with client.timed(f"pwrite {name}"):
                client.expect("written", os.pwrite(file, block, start), len(block))
            with client.timed(f"pread {name}"):
                client.expect(f"bytes {name}", os.pread(file, len(block), start), block)
        with client.timed("append"):
            length += os.write(appended, block[:100])
        with client.timed("size"):
            client.expect("appended", os.fstat(appended).st_size, length)
            client.expect("appended behind", os.stat(f"{real}/appended").st_size, length)
        if length > 1 << 20:
            with client.timed("ftruncate"):
                os.ftruncate(appended, 0)
                length = 0
        with client.timed("write new"):
            with open(f"{where}/new", "wb") as file:
                file.write(block)
            with open(f"{real}/new", "rb") as file:
                client.expect("new", file.read(), block)
        with client.timed("write again"):
            with open(f"{where}/new", "wb") as file:
                file.write(block[:10])
            client.expect("size of new", os.stat(f"{real}/new").st_size, 10)
        with client.timed("unlink open"), open(f"{where}/new", "rb") as file:
            os.unlink(f"{where}/new")
            client.expect("removed", file.read(), block[:10])
            client.expect("links", os.fstat(file.fileno()).st_nlink, 0)

    return step


WRITERS = {"names": change_names, "attributes": change_attributes, "bytes": change_bytes}
