"""Kills the daemon of a writable mount in the middle of changes, and compares what it left.

``python -m tests.layers.kills --kills 200`` prints a report, and fails if the changes do not give a
tree in their order: with all that the client saw succeed, and with or without the next one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.layers import writable
from tests.support import Daemon

KINDS = ("union", "mirror")
_MODULE = "tests.layers.kills"
_CHANGES = 300
_FILES = 12
ENDINGS = ("", ".txt")
_LARGE = 1 << 20  # bytes of a lower file: its copy takes a while
_LONGEST_S = 0.2
_CLIENT_S = 60.0

Tree = dict[str, tuple[object, ...]]
Change = Callable[[Path], None]


def changes(seed: int) -> Iterator[Change]:
    """Yield changes, each seen as one: files and directories that are changed, moved, removed."""
    chosen = random.Random(seed)
    names = [f"d{number % 3}/f{number}" for number in range(_FILES)]
    directories = ["d0", "d1", "d2"]
    for number in range(_CHANGES):
        name = chosen.choice(names)
        other = f"{chosen.choice(directories)}/n{number}{chosen.choice(ENDINGS)}"
        match chosen.randrange(8):
            case 0:
                yield lambda root, name=name: _append(root / name)
            case 1:
                mode = 0o600 | number % 8
                yield lambda root, name=name, mode=mode: os.chmod(root / name, mode)
            case 2 | 3:
                yield lambda root, name=name, other=other: os.rename(root / name, root / other)
                names[names.index(name)] = other
            case 4:
                over = chosen.choice(names)
                if over != name:
                    yield lambda root, name=name, over=over: os.rename(root / name, root / over)
                    names.remove(name)
                    names.append(other)
                    yield lambda root, other=other: os.mknod(root / other, stat.S_IFREG | 0o644)
            case 5 | 6:
                old, *rest = chosen.sample(directories, 2)
                new = _new_directory(number, old, chosen.choice(["", *rest]))
                yield lambda root, old=old, new=new: os.rename(root / old, root / new)
                names = [_moved(one, old, new) for one in names]
                directories = [_moved(one, old, new) for one in directories]
            case _:
                yield lambda root, name=name: os.unlink(root / name)
                yield lambda root, name=name: os.symlink("target", root / name)
                yield lambda root, name=name: os.unlink(root / name)
                yield lambda root, name=name: os.mknod(root / name, stat.S_IFREG | 0o640)


def _new_directory(number: int, old: str, above: str) -> str:
    """Return a new name for a directory: at the top, or in another one that is not below it."""
    within = above and "/" not in above and not f"{above}/".startswith(f"{old}/")
    return f"{above}/e{number}" if within else f"e{number}"


def _moved(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if f"{path}/".startswith(f"{old}/") else path


def _append(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, b"more")
    finally:
        os.close(fd)


def tree_of(root: Path) -> Tree:
    """Return each path with its type, mode and bytes."""
    found: Tree = {}
    for path in root.rglob("*"):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        held: object = None
        if kind == stat.S_IFREG:
            held = path.read_bytes()
        elif kind == stat.S_IFLNK:
            held = os.readlink(path)
        found[str(path.relative_to(root))] = (stat.filemode(status.st_mode), held)
    return found


def make_files(root: Path) -> None:
    """Make the files that the changes begin with."""
    for number in range(_FILES):
        size = _LARGE if number % 2 else 10
        writable.write(root / f"d{number % 3}" / f"f{number}", bytes([number]) * size)


def kill_once(above: Path, kind: str, seed: int) -> str:
    """Kill a daemon once in the middle of changes; returns what is wrong, or ""."""
    make_files(above / "low")
    for name in ("up", "mnt"):
        (above / name).mkdir()
    if kind == "union":
        daemon = writable.start(above, ["low"], "up", "mnt", "--redirect-dir")
    else:
        daemon = Daemon(str(above / "low"), str(above / "mnt"), "--rw", log=str(above / "mnt.log"))
    done = _killed(daemon, above, seed)
    make_files(above / "model")
    wanted = list(changes(seed))
    for change in wanted[:done]:
        change(above / "model")
    before = tree_of(above / "model")
    if done < len(wanted):
        wanted[done](above / "model")
    after = tree_of(above / "model")
    with _shown(above, kind) as root:
        found = tree_of(root)
    if found in (before, after):
        return ""
    differing = {name for name, what in found.items() ^ after.items()}
    return f"{kind}, seed {seed}: after {done} changes {sorted(differing)} are neither old nor new"


def _killed(daemon: Daemon, above: Path, seed: int) -> int:
    """Return how many changes a client made before the kill ended them."""
    command = [sys.executable, "-m", _MODULE, "--client", daemon.mountpoint, "--seed", str(seed)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert client.stdout is not None
        assert client.stdout.read(1) == b"."  # the first change is done
        time.sleep(random.Random(seed).uniform(0, _LONGEST_S))
        daemon.kill(signal.SIGKILL)
        rest, _ = client.communicate(timeout=_CLIENT_S)
    finally:
        client.kill()
        client.wait()
        daemon.unmount()
    return 1 + len(rest)


def change_until_killed(root: Path, seed: int) -> None:
    """Make the changes, and write a byte for each that is done, until one fails."""
    with suppress(OSError):
        for change in changes(seed):
            change(root)
            os.write(sys.stdout.fileno(), b".")


@contextmanager
def _shown(above: Path, kind: str) -> Iterator[Path]:
    """The tree that the directories hold: of a union, as the next mount shows it."""
    if kind == "mirror":
        yield above / "low"
        return
    with writable.union(above, ["low"], "up", "again") as daemon:
        yield Path(daemon.mountpoint)
    assert os.listdir(above / "up.work" / "work") == []


def run(kills: int, kinds: tuple[str, ...], first: int = 0) -> list[str]:
    """Kill so many daemons of each kind; returns what is wrong."""
    wrong = []
    for kind in kinds:
        for seed in range(first, first + kills):
            above = Path(tempfile.mkdtemp(prefix="zcfuse-kills-"))
            try:
                problem = kill_once(above, kind, seed)
            finally:
                shutil.rmtree(above, ignore_errors=True)
            if problem:
                wrong.append(problem)
    return wrong


def main() -> int:
    """Run, and print a report."""
    options = argparse.ArgumentParser()
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--kind", choices=KINDS)
    options.add_argument("--client", type=Path)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.client:
        change_until_killed(given.client, given.seed)
        return 0
    kinds = (given.kind,) if given.kind else KINDS
    wrong = run(given.kills, kinds, given.seed)
    print("\n".join(wrong))
    print(f"{given.kills} kills of each of {', '.join(kinds)}: {len(wrong)} trees are wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
