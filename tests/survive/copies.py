"""Clients that change what the lower layers of a union have; each works in a tree of its own.

Every change copies a file up, covers a name, or makes a name where a whiteout is. The clients count
errors as those of `tests.survive.client` do.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.survive.client import Client

_COPIES, _MOVES = "copies", "moves"
_TREES = 200
_CONTENT = bytes(range(256)) * 32


def make(lower: str) -> None:
    """Make in a lower layer what the clients change."""
    for name, tree in itertools.product((_COPIES, _MOVES), range(_TREES)):
        where = os.path.join(lower, name, str(tree))
        os.makedirs(f"{where}/directory")
        for file, content in (("file", _CONTENT), ("other", b""), ("directory/inner", _CONTENT)):
            with open(f"{where}/{file}", "wb") as target:
                target.write(content)


def change_copies(client: Client) -> Callable[[], None]:
    """Change, link, move, remove and make again the files of a lower layer."""
    ways = (_change_file, _move_file, _replace_file, _replace_directory)
    turns = itertools.count()

    def step() -> None:
        tree, way = divmod(next(turns), len(ways))
        ways[way](client, os.path.join(client.mount, _COPIES, str(tree % _TREES)))

    return step


def _change_file(client: Client, where: str) -> None:
    path = f"{where}/file"
    mode = 0o600 | random.randrange(8)
    with client.timed("stat original"):
        number = os.stat(path).st_ino
    with open(path, "rb") as held:
        with client.timed("chmod copied"):
            os.chmod(path, mode)
        with client.timed("stat copied"):
            for found in (os.stat(path), os.fstat(held.fileno())):
                client.expect("mode of copy", found.st_mode & 0o777, mode)
                client.expect("number of copy", found.st_ino, number)
        with client.timed("append to copy"), open(path, "ab") as file:
            file.write(b"more")
        with client.timed("read copy"), open(path, "rb") as file:
            client.expect("bytes of copy", file.read(), _CONTENT + b"more")
        with client.timed("read held"):
            client.expect("held bytes", held.read(len(_CONTENT)), _CONTENT)
        with client.timed("truncate copy"):
            os.truncate(path, len(_CONTENT))
            client.expect("number of written copy", os.stat(path).st_ino, number)


def _move_file(client: Client, where: str) -> None:
    with client.timed("link copied"):
        os.link(f"{where}/file", f"{where}/second")
        client.expect("links", os.stat(f"{where}/second").st_nlink, 2)
    with client.timed("unlink link"):
        os.unlink(f"{where}/second")
    with client.timed("rename copied"):
        os.rename(f"{where}/file", f"{where}/moved")
    _expect_names(client, where, ["directory", "moved", "other"])
    with client.timed("rename over whiteout"):
        os.rename(f"{where}/moved", f"{where}/file")
    _expect_names(client, where, ["directory", "file", "other"])


def _replace_file(client: Client, where: str) -> None:
    with client.timed("unlink covered"):
        os.unlink(f"{where}/file")
    with client.timed("create over whiteout"), open(f"{where}/file", "xb") as file:
        file.write(_CONTENT)
    with client.timed("unlink lower"):
        os.unlink(f"{where}/other")
    with client.timed("symlink over whiteout"):
        os.symlink("target", f"{where}/other")
    with client.timed("unlink symlink"):
        os.unlink(f"{where}/other")
    _expect_names(client, where, ["directory", "file"])
    with client.timed("mknod over whiteout"):
        os.mknod(f"{where}/other")


def _replace_directory(client: Client, where: str) -> None:
    with client.timed("unlink below"):
        os.unlink(f"{where}/directory/inner")
    with client.timed("rmdir covered"):
        os.rmdir(f"{where}/directory")
    with client.timed("mkdir over whiteout"):
        os.mkdir(f"{where}/directory")
    _expect_names(client, f"{where}/directory", [])
    with client.timed("create in opaque"), open(f"{where}/directory/inner", "xb") as file:
        file.write(_CONTENT)


def move_directories(client: Client) -> Callable[[], None]:
    """Move directories of a lower layer, which leaves a redirect, and back."""
    trees = itertools.count()

    def step() -> None:
        where = os.path.join(client.mount, _MOVES, str(next(trees) % _TREES))
        for old, new in (("directory", "elsewhere"), ("elsewhere", "directory")):
            with client.timed("rename merged directory"):
                os.rename(f"{where}/{old}", f"{where}/{new}")
            _expect_names(client, f"{where}/{new}", ["inner"])
            with client.timed("read below moved"), open(f"{where}/{new}/inner", "rb") as file:
                client.expect("bytes below moved", file.read(), _CONTENT)
            _expect_names(client, where, ["file", "other", new])

    return step


def _expect_names(client: Client, where: str, wanted: list[str]) -> None:
    with client.timed("names"):
        client.expect(f"names of {where}", sorted(os.listdir(where)), sorted(wanted))


COPIERS = {"copies": change_copies}
MOVERS = {"moves": move_directories}
