"""Measures what ``--coherence`` costs those who write to the backing tree while a reader walks it.

Run as a program, as root: ``python -m tests.coherence.writers [--files N] [--rounds N]``, or ``make
writers``. The program makes an ext4 filesystem in an image file, so that no other writer counts.
Each round runs each writer without a mount, with ``ttl`` and with ``push``; the table has the
medians. With ``push`` a fence follows, and the whole mount is compared with the tree. The program
ends with status 1 if anything was stale.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.coherence.stress import READER, differences, fence, look
from tests.integration.conftest import kernel_mount, serving
from tests.support import Daemon

IMAGE_BYTES: Final = 4 << 30
FILES_A_DIRECTORY: Final = 100
SAVES: Final = 500
TRANSACTIONS: Final = 500
WAYS: Final = ("alone", "ttl", "push")
PROGRAM_S: Final = 600


@dataclass(frozen=True)
class Writer:
    """`prepare` makes what `write` needs and is not measured; both get the tree."""

    name: str
    prepare: Callable[[Path], None]
    write: Callable[[Path], None]


@dataclass
class Result:
    """Seconds by way, and what the pushing daemon counted in the last round."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {way: [] for way in WAYS})
    counted: dict[str, int] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)


def run(*argv: str | Path) -> None:
    """Run a program that must succeed."""
    subprocess.run(argv, check=True, timeout=PROGRAM_S, stdout=subprocess.DEVNULL)


def nothing(tree: Path) -> None:
    """Prepare nothing."""


def make_files(directory: Path, files: int, text: str) -> None:
    """Make small files that differ, FILES_A_DIRECTORY in each directory."""
    for number in range(files):
        place = directory / f"{number // FILES_A_DIRECTORY}"
        if number % FILES_A_DIRECTORY == 0:
            place.mkdir(parents=True)
        (place / f"{number}").write_text(f"{text} {number}\n" * 20)


def save_often(tree: Path) -> None:
    """Save a file as an editor does: a new file, written out, takes the place of the old one."""
    for number in range(SAVES):
        new = tree / ".text.swp"
        with open(new, "w") as file:
            file.write(f"{number}\n" * 1000)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, tree / "text")


def commit_often(tree: Path) -> None:
    """Commit transactions to a database, each by a journal file."""
    with contextlib.closing(sqlite3.connect(tree / "database")) as database:
        database.execute("create table if not exists numbers (number)")
        for number in range(TRANSACTIONS):
            with database:
                database.execute("insert into numbers values (?)", (number,))


def writers(stock: Path, files: int) -> list[Writer]:
    """Return the writers; `stock` gets what they start from, outside of the tree."""
    make_files(stock / "files", files, "first")
    run("tar", "-C", stock, "-cf", stock / "files.tar", "files")
    repository = stock / "repository"
    git = ("git", "-C", repository, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "gc.auto=0")
    run("git", "init", "-q", "-b", "one", repository)
    for branch in ("one", "two"):
        if branch == "two":
            run(*git, "checkout", "-q", "-b", "two")
            shutil.rmtree(repository / "files")
        make_files(repository / "files", files // 5, branch)
        run(*git, "add", "-A")
        run(*git, "commit", "-q", "-m", branch)

    def untar(tree: Path) -> None:
        run("tar", "-C", tree, "-xf", stock / "files.tar")

    def clone(tree: Path) -> None:
        run("cp", "-a", repository, tree)

    def check_out(tree: Path) -> None:
        run("git", "-C", tree / "repository", "checkout", "-q", "one")

    def copy(tree: Path) -> None:
        run("rsync", "-a", f"{repository}/files/", tree / "copy")

    def remove(tree: Path) -> None:
        run("rm", "-rf", tree / "files")

    return [
        Writer(f"git checkout, {files // 5:,} files", clone, check_out),
        Writer(f"tar -x, {files:,} files", nothing, untar),
        Writer(f"rsync -a, {files // 5:,} files", nothing, copy),
        Writer(f"rm -rf, {files:,} files", untar, remove),
        Writer(f"an editor, {SAVES:,} saves", nothing, save_often),
        Writer(f"SQLite, {TRANSACTIONS:,} transactions", nothing, commit_often),
    ]


@contextlib.contextmanager
def mounted(tree: Path, way: str, base: Path) -> Iterator[Daemon | None]:
    """Mount the tree and have a reader walk it, unless the way is without a mount."""
    if way == "alone":
        yield None
        return
    with (
        tempfile.TemporaryDirectory(dir=base) as room,
        serving(Path(room), str(tree), "--coherence", way) as daemon,
        subprocess.Popen([sys.executable, "-c", READER, daemon.mountpoint]) as reader,
    ):
        try:
            yield daemon
        finally:
            reader.kill()


def measure(writer: Writer, way: str, base: Path, result: Result) -> None:
    """Run a writer once in a new tree, and add what it took."""
    tree = base / "disk" / "tree"
    tree.mkdir()
    writer.prepare(tree)
    os.sync()
    try:
        with mounted(tree, way, base) as daemon:
            start = time.monotonic()
            writer.write(tree)
            result.seconds[way].append(time.monotonic() - start)
            if daemon is not None and way == "push":
                fence(daemon.mountpoint)
                found = differences(
                    look(daemon.mountpoint, links=True), look(str(tree), links=True)
                )
                result.stale += [f"{writer.name}: {line}" for line in found]
                result.counted = daemon.status()["datapath"]["coherence"]
    finally:
        shutil.rmtree(tree)


def print_table(results: dict[str, Result]) -> None:
    """Print a row for each writer, in Markdown."""
    print("| writer | alone | ttl | push | push / ttl | events | epochs | stale |")
    print("|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        alone, ttl, push = (statistics.median(result.seconds[way]) for way in WAYS)
        events, epochs = (result.counted[what] for what in ("events", "epochs"))
        print(
            f"| {name} | {alone:.2f} s | {ttl:.2f} s | {push:.2f} s | {push / ttl:.2f}"
            f" | {events:,} | {epochs:,} | {len(result.stale)} |"
        )


def main() -> int:
    """Measure all writers; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "disk").mkdir()
        image = base / "image"
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-N", f"{4 * options.files}", image)
        with kernel_mount("-o", "loop", str(image), str(base / "disk")):
            every = writers(base / "stock", options.files)
            results = {one.name: Result() for one in every}
            for _ in range(options.rounds):
                for writer in every:
                    for way in WAYS:
                        measure(writer, way, base, results[writer.name])
    print_table(results)
    stale = [line for result in results.values() for line in result.stale]
    for line in stale[:20]:
        print(line)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
