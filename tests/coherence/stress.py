"""Random changes of a backing tree while readers hammer its mount; after each fence both are equal.

Run as a program, since it looks at a mount: ``python -m tests.coherence.stress ROUNDS SEED
MOUNTPOINT SOURCE...``. With several sources the mount shows them merged, the first on top, and
changes are made in all of them. It ends with status 1, and a line for each difference, once the
mount shows something that the backing tree does not.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Final

from zcfuse.admin.status import Request, SyncReply, ask, find_mount

CHANGES_A_ROUND: Final = 20
FENCE_S: Final = 20.0
_NAMES: Final = [f"{letter}{number}" for letter in "abcd" for number in range(4)]
_DIRECTORIES: Final = ["", "x", "y", "x/z"]
_READERS: Final = 2

Tree = Mapping[str, object]

# A reader runs this until it is killed. It fills every cache that there is.
_READER: Final = """
import os, sys
while True:
    for where, directories, files in os.walk(sys.argv[1]):
        for name in directories + files:
            try:
                os.lstat(os.path.join(where, name))
                with open(os.path.join(where, name), "rb") as file:
                    file.read()
            except OSError:
                pass
        for name in ("a0", "b1", "c2", "missing"):
            try:
                os.stat(os.path.join(where, name))
            except OSError:
                pass
"""


def change(source: str, dice: random.Random) -> None:
    """Make one change, such as a user or a program would; what fails changes nothing."""
    path = os.path.join(source, dice.choice(_DIRECTORIES), dice.choice(_NAMES))
    other = os.path.join(source, dice.choice(_DIRECTORIES), dice.choice(_NAMES))
    kinds: list[Callable[[], object]] = [
        lambda: _write(path, os.O_CREAT | os.O_TRUNC, dice.randbytes(dice.randrange(9000))),
        lambda: _write(path, os.O_APPEND, dice.randbytes(100)),
        lambda: os.truncate(path, dice.randrange(5000)),
        lambda: os.chmod(path, 0o600 + dice.randrange(64)),
        lambda: os.utime(path, ns=(0, dice.randrange(10**18))),
        lambda: os.unlink(path),
        lambda: os.rename(path, other),
        lambda: os.link(path, other),
        lambda: os.symlink(dice.choice(_NAMES), path),
        lambda: os.mkdir(path),
        lambda: os.rmdir(path),
        lambda: _exchange_directories(source),
    ]
    with contextlib.suppress(OSError):
        dice.choice(kinds)()


def _write(path: str, flags: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _exchange_directories(source: str) -> None:
    os.rename(f"{source}/y", f"{source}/away")
    os.rename(f"{source}/x/z", f"{source}/y")
    os.rename(f"{source}/away", f"{source}/x/z")


def look(root: str, *, links: bool) -> Tree:
    """Return what a client can see of a tree, access times apart."""
    seen: dict[str, object] = {"": sorted(os.listdir(root))}
    for where, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(where, name)
            seen[os.path.relpath(path, root)] = _look_at(path, links=links)
    for name in _NAMES:
        seen.setdefault(name, os.path.lexists(os.path.join(root, name)))
    return seen


def _look_at(path: str, *, links: bool) -> object:
    status = os.lstat(path)
    fields = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    if stat.S_ISDIR(status.st_mode):
        return *fields, sorted(os.listdir(path)), status.st_nlink if links else 0
    fields = (*fields, status.st_size, status.st_nlink, status.st_ctime_ns)
    if stat.S_ISLNK(status.st_mode):
        return *fields, os.readlink(path)
    with open(path, "rb") as file:
        return *fields, file.read()


def merged(sources: list[str]) -> Tree:
    """Return what a client should see of directories merged, the first on top; no whiteouts."""
    if len(sources) == 1:
        return look(sources[0], links=True)
    seen: dict[str, object] = {}
    for source in reversed(sources):
        for path, what in look(source, links=False).items():
            lower = seen.get(path)
            seen[path] = what
            if isinstance(lower, tuple) and isinstance(what, tuple):
                seen[path] = _merged_directory(what, lower)
            elif isinstance(lower, tuple) and what is False:
                seen[path] = lower
    return _without_covered(seen, sources)


def _merged_directory(upper: tuple[object, ...], lower: tuple[object, ...]) -> object:
    if not (stat.S_ISDIR(int(str(upper[0]))) and stat.S_ISDIR(int(str(lower[0])))):
        return upper
    assert isinstance(upper[4], list)
    assert isinstance(lower[4], list)
    return *upper[:4], sorted({*upper[4], *lower[4]}), upper[5]


def _without_covered(seen: dict[str, object], sources: list[str]) -> Tree:
    """Leave out what lies below a name that a layer above has as a file."""

    def is_covered(path: str) -> bool:
        above = os.path.dirname(path)
        while above:
            tops = [source for source in sources if os.path.lexists(f"{source}/{above}")]
            if tops and not stat.S_ISDIR(os.lstat(f"{tops[0]}/{above}").st_mode):
                return True
            above = os.path.dirname(above)
        return False

    kept = {path: what for path, what in seen.items() if not is_covered(path)}
    kept[""] = sorted({name for source in sources for name in os.listdir(source)})
    return kept


def differences(shown: Tree, backing: Tree) -> list[str]:
    """Return a line for each name that is not shown as it is."""
    names = sorted({*shown, *backing})
    return [
        f"{name!r}: shown {str(shown.get(name))[:200]}, is {str(backing.get(name))[:200]}"
        for name in names
        if shown.get(name) != backing.get(name)
    ]


def fence(mountpoint: str) -> None:
    """Wait until the mount shows every change made so far."""
    reply = ask(find_mount(mountpoint), Request("sync", FENCE_S), timeout=FENCE_S + 5)
    assert isinstance(reply, SyncReply)
    assert reply.done, "the fence did not come back"


def run(rounds: int, seed: int, mountpoint: str, sources: list[str]) -> list[str]:
    """Change and compare; return the differences of the first round that has some."""
    dice = random.Random(seed)
    for source in sources:
        for directory in filter(None, _DIRECTORIES):
            os.makedirs(os.path.join(source, directory), exist_ok=True)
    readers = [
        subprocess.Popen([sys.executable, "-c", _READER, mountpoint]) for _ in range(_READERS)
    ]
    try:
        for number in range(rounds):
            for _ in range(CHANGES_A_ROUND):
                change(dice.choice(sources), dice)
            fence(mountpoint)
            found = differences(look(mountpoint, links=len(sources) == 1), merged(sources))
            if found:
                return [f"round {number}, seed {seed}", *found]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    return []


if __name__ == "__main__":
    stale = run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
    print("\n".join(stale))
    sys.exit(1 if stale else 0)
