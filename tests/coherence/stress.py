"""Random changes of a backing tree while readers hammer its mount; after each fence both are equal.

Run as a program, since it looks at a mount: ``python -m tests.coherence.stress ROUNDS SEED
MOUNTPOINT SOURCE... [--fixed SOURCE] [--settle SECONDS]``. With several sources the mount shows
them merged, the first on top, and several processes make changes in all of them, except in the
fixed one, the lowest. Behind a fence, attributes may be stale for the seconds that ``--settle``
gives. The program ends with status 1, and a line for each difference, once the mount shows
something that the backing tree does not.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from zcfuse.admin.status import Request, StatusError, SyncReply, ask, find_mount

WRITERS: Final = 2
CHANGES_A_WRITER: Final = 15  # in one round
FENCE_S: Final = 20.0
_NAMES: Final = [f"{letter}{number}" for letter in "abcd" for number in range(4)]
_DIRECTORIES: Final = ["", "x", "y", "x/z"]
_READERS: Final = 2
_STEP_S: Final = 0.0003
_PAUSE_S: Final = 0.01
# Changed in place only, and mapped by a reader that looks at nothing else of them.
_MAPPED: Final = ("m0", "m1")
_MAPPED_BYTES: Final = mmap.PAGESIZE

Tree = Mapping[str, object]

# A reader runs this until it is killed. It fills every cache that there is.
READER: Final = """
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

_MAPPED_READER: Final = """
import sys
from tests.coherence.stress import mapped
with mapped(sys.argv[1]) as maps:
    while True:
        for one in maps:
            one[0]
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
        lambda: _make_slowly(path, dice),
        lambda: _write_in_place(os.path.join(source, dice.choice(_MAPPED)), dice),
    ]
    with contextlib.suppress(OSError):
        dice.choice(kinds)()


def _write(path: str, flags: int, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | flags, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _make_slowly(path: str, dice: random.Random) -> None:
    """Change a file several times soon after it was made, so that first looks meet changes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for number in range(8):
            time.sleep(_STEP_S)
            os.fchmod(descriptor, 0o600 + dice.randrange(64))
            if number % 2:
                os.write(descriptor, dice.randbytes(100))
    finally:
        os.close(descriptor)


def _write_in_place(path: str, dice: random.Random) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for _ in range(4):
            os.pwrite(descriptor, dice.randbytes(100), 0)
    finally:
        os.close(descriptor)


def change_often(sources: list[str], seed: int) -> None:
    """Make the changes of one writer in one round."""
    dice = random.Random(seed)
    for _ in range(CHANGES_A_WRITER):
        change(dice.choice(sources), dice)


@contextlib.contextmanager
def mapped(root: str) -> Iterator[list[mmap.mmap]]:
    """Map the files that are only changed in place."""
    with contextlib.ExitStack() as maps:
        files = [maps.enter_context(open(os.path.join(root, name), "rb")) for name in _MAPPED]
        yield [
            maps.enter_context(mmap.mmap(file.fileno(), _MAPPED_BYTES, prot=mmap.PROT_READ))
            for file in files
        ]


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
    """Wait until the mount shows every change made so far; ask again if its daemon was killed."""
    deadline = time.monotonic() + FENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(StatusError):
            reply = ask(find_mount(mountpoint), Request("sync", FENCE_S), timeout=FENCE_S + 5)
            if isinstance(reply, SyncReply) and reply.done:
                return
        time.sleep(_PAUSE_S)
    raise AssertionError("the fence did not come back")


def _prepare(sources: list[str]) -> None:
    for source in sources:
        for directory in filter(None, _DIRECTORIES):
            os.makedirs(os.path.join(source, directory), exist_ok=True)
    for name in _MAPPED:
        with open(os.path.join(sources[0], name), "wb") as file:
            file.write(bytes(_MAPPED_BYTES))


@contextlib.contextmanager
def _reading(mountpoint: str) -> Iterator[None]:
    programs = [READER] * _READERS + [_MAPPED_READER]
    readers = [subprocess.Popen([sys.executable, "-c", one, mountpoint]) for one in programs]
    try:
        yield
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def run(
    rounds: int, seed: int, mountpoint: str, sources: list[str], fixed: list[str], settle: float
) -> list[str]:
    """Change and compare; return the differences of the first round that has some."""
    dice = random.Random(seed)
    _prepare(sources)
    fence(mountpoint)
    layers = [*sources, *fixed]
    writers = ProcessPoolExecutor(WRITERS, mp_context=get_context("spawn"))
    with writers, _reading(mountpoint), mapped(mountpoint) as shown, mapped(sources[0]) as backing:
        for number in range(rounds):
            seeds = [dice.randrange(1 << 32) for _ in range(WRITERS)]
            for _ in writers.map(change_often, [sources] * WRITERS, seeds):
                pass
            fence(mountpoint)
            time.sleep(settle)
            stale = [
                name for name, a, b in zip(_MAPPED, shown, backing, strict=True) if a[:] != b[:]
            ]
            found = [f"{name!r}: a mapping shows other bytes" for name in stale]
            found += differences(look(mountpoint, links=len(layers) == 1), merged(layers))
            if found:
                return [f"round {number}, seed {seed}", *found]
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("mountpoint")
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--fixed", action="append", default=[])
    parser.add_argument("--settle", type=float, default=0)
    found = run(**vars(parser.parse_args()))
    print("\n".join(found))
    sys.exit(1 if found else 0)
