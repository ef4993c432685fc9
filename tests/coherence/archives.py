"""Random changes of a directory of archives while readers hammer the mount that shows them.

Run as a program, since it looks at a mount: ``python -m tests.coherence.archives ROUNDS SEED
MOUNTPOINT DIRECTORY``. After each fence the mount must show what Python's tarfile and zipfile find
in each archive. It ends with status 1 and a line for each difference.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import Final

from tests.coherence.stress import READER, Tree, differences, fence

_NAMES: Final = ("a.tar", "b.tar", "c.zip", "d.tar")
_MEMBERS: Final = ("a0", "b1", "x/a1", "x/z/c2")
_CHANGES: Final = 4  # in one round
_READERS: Final = 2


def write_archive(path: str, members: dict[str, bytes]) -> None:
    """Write an archive of these members, in place."""
    if path.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _change(directory: str, dice: random.Random) -> None:
    path = os.path.join(directory, dice.choice(_NAMES))
    kind = dice.choice(("replace", "replace", "rewrite", "remove", "touch", "copy", "break"))
    chosen = dice.sample(_MEMBERS, dice.randrange(1, len(_MEMBERS) + 1))
    members = {name: dice.randbytes(dice.randrange(3000)) for name in chosen}
    if kind == "replace":
        ending = os.path.splitext(path)[1]
        write_archive(f"{directory}/.new{ending}", members)
        os.rename(f"{directory}/.new{ending}", path)
    elif kind == "rewrite":
        write_archive(path, members)
    elif kind == "remove" and len(os.listdir(directory)) > 1:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    elif kind == "touch" and os.path.exists(path):
        os.utime(path)
    elif kind == "copy" and os.path.exists(f"{directory}/a.tar"):
        with contextlib.suppress(shutil.SameFileError):
            shutil.copyfile(f"{directory}/a.tar", f"{directory}/d.tar")
    elif kind == "break":
        with open(path, "wb") as file:
            file.write(b"no archive")
        write_archive(path, members)  # and whole again


def _in_archives(directory: str) -> Tree:
    found: dict[str, object] = {"": []}
    for file in os.listdir(directory):
        path, name = os.path.join(directory, file), os.path.splitext(file)[0]
        if file.endswith(".zip"):
            with zipfile.ZipFile(path) as packed:
                members = {one: packed.read(one) for one in packed.namelist()}
        else:
            with tarfile.open(path) as archive:
                members = {}
                for member in archive:
                    opened = archive.extractfile(member)
                    assert opened is not None
                    members[member.name] = opened.read()
        found |= {f"{name}/{member}": data for member, data in members.items()}
        found[""] = sorted({*_listed(found[""]), name})
    return found


def _listed(names: object) -> list[str]:
    assert isinstance(names, list)
    return names


def _shown(mountpoint: str) -> Tree:
    found: dict[str, object] = {"": sorted(os.listdir(mountpoint))}
    for where, _, files in os.walk(mountpoint):
        for name in files:
            path = os.path.join(where, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, mountpoint)] = file.read()
    return found


def run(rounds: int, seed: int, mountpoint: str, directory: str) -> list[str]:
    """Change and compare; return the differences of the first round that has some."""
    dice = random.Random(seed)
    command = [sys.executable, "-c", READER, mountpoint]
    readers = [subprocess.Popen(command) for _ in range(_READERS)]
    try:
        for number in range(rounds):
            for _ in range(_CHANGES):
                _change(directory, dice)
            fence(mountpoint)
            found = differences(_shown(mountpoint), _in_archives(directory))
            if found:
                return [f"round {number}, seed {seed}", *found]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rounds", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("mountpoint")
    parser.add_argument("directory")
    found = run(**vars(parser.parse_args()))
    print("\n".join(found))
    sys.exit(1 if found else 0)
