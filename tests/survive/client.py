"""A client of the load: ``python -m tests.survive.client ROLE MOUNT BACKING STOP REPORT``.

It works until the file STOP exists, and for `LEAST_STEPS` steps at least. Then it writes a report:
how many operations, the errors, the wrong answers, and the operations that took long. Nothing in it
waits on purpose.
"""

import errno
import fcntl
import itertools
import json
import mmap
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.survive.copies import COPIERS, MOVERS
from tests.survive.tree import DIRECTORIES, FILES, content_of, path_of, size_of
from tests.survive.writers import WRITERS

# On a busy machine a run may be over before a client has seen much.
LEAST_STEPS = 100
# Shorter ones are not listed one by one.
_LONG_S = 0.002


class Client:
    """The needs of every role: the two trees, and the count of what happens."""

    def __init__(self, mount: str, backing: str) -> None:
        self.mount = mount
        self.backing = backing
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.long: list[tuple[float, float, str]] = []

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count one operation, its error if any, and the time it takes."""
        began = time.monotonic()
        try:
            yield
        except OSError as error:
            self.errors[f"{name} {errno.errorcode.get(error.errno or 0, error)}"] += 1
        ended = time.monotonic()
        self.done[name] += 1
        if ended - began > _LONG_S:
            self.long.append((began, ended, name))

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a difference; what is too long to show is cut."""
        if found != wanted:
            self.wrong.append(f"{what}: {found!r:.120} instead of {wanted!r:.120}")

    def file(self) -> tuple[int, int]:
        return random.randrange(DIRECTORIES), random.randrange(FILES)

    def path(self, directory: int, file: int) -> str:
        return os.path.join(self.mount, path_of(directory, file))


def walk(client: Client) -> Callable[[], None]:
    """List directories and look at each entry: names, numbers and times stay as they are."""
    numbers: dict[str, int] = {}

    def step() -> None:
        directory = random.randrange(DIRECTORIES)
        with client.timed("listdir"):
            names = sorted(os.listdir(os.path.join(client.mount, f"d{directory}")))
            client.expect("names", names, sorted(f"f{file}" for file in range(FILES)))
        for file in range(FILES):
            path = client.path(directory, file)
            with client.timed("lstat"):
                found = os.lstat(path)
                client.expect(f"size of {path}", found.st_size, size_of(directory, file))
                number = numbers.setdefault(path, found.st_ino)
                client.expect(f"number of {path}", found.st_ino, number)
                real = os.lstat(os.path.join(client.backing, path_of(directory, file)))
                client.expect(f"mode of {path}", found.st_mode, real.st_mode)

    return step


def read(client: Client) -> Callable[[], None]:
    """Open, read and close whole files."""

    def step() -> None:
        directory, file = client.file()
        descriptor = -1
        with client.timed("open"):
            descriptor = os.open(client.path(directory, file), os.O_RDONLY)
        if descriptor < 0:
            return
        with client.timed("read"):
            found = b""
            while chunk := os.read(descriptor, 1 << 16):
                found += chunk
            client.expect(f"bytes of {directory}/{file}", found, content_of(directory, file))
        with client.timed("close"):
            os.close(descriptor)

    return step


def hold(client: Client) -> Callable[[], None]:
    """Read by descriptors, mappings and sendfile(2) that were made before the first kill."""
    held = [(directory, file) for directory in range(4) for file in range(2)]
    descriptors = {one: os.open(client.path(*one), os.O_RDONLY) for one in held}
    mappings = {
        one: mmap.mmap(descriptors[one], 0, mmap.MAP_SHARED, mmap.PROT_READ) for one in held
    }
    contents = {one: content_of(*one) for one in held}
    sink = os.memfd_create("sink")
    locked = descriptors[held[0]]
    fcntl.flock(locked, fcntl.LOCK_EX)

    def step() -> None:
        one = random.choice(held)
        wanted = contents[one]
        start = random.randrange(len(wanted))
        with client.timed("pread"):
            found = os.pread(descriptors[one], 20_000, start)
            client.expect("pread", found, wanted[start : start + 20_000])
        if random.random() < 0.2:
            mappings[one].madvise(mmap.MADV_DONTNEED)
            with client.timed("fadvise"):
                os.posix_fadvise(descriptors[one], 0, 0, os.POSIX_FADV_DONTNEED)
        with client.timed("mapping"):
            client.expect("mapping", mappings[one][start], wanted[start])
        with client.timed("sendfile"):
            os.ftruncate(sink, 0)
            os.lseek(sink, 0, os.SEEK_SET)
            sent = os.sendfile(sink, descriptors[one], 0, len(wanted))
            client.expect("sendfile", os.pread(sink, sent, 0), wanted)
        with client.timed("fstat"):
            client.expect("fstat", os.fstat(descriptors[one]).st_size, len(wanted))
        with client.timed("flock"):
            other = os.open(client.path(*held[0]), os.O_RDONLY)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                client.wrong.append("the lock was lost")
            except BlockingIOError:
                pass
            finally:
                os.close(other)

    return step


def stay(client: Client) -> Callable[[], None]:
    """Work in a held directory, and go on with a listing of many requests."""
    directory = 5
    os.chdir(os.path.join(client.mount, f"d{directory}"))
    large = os.open(os.path.join(client.mount, "large"), os.O_RDONLY | os.O_DIRECTORY)
    wanted = sorted(os.listdir(os.path.join(client.backing, "large")))
    listing: list[Iterator[os.DirEntry[str]]] = []
    seen: list[str] = []

    def step() -> None:
        file = random.randrange(FILES)
        with client.timed("stat in directory"):
            found = os.stat(f"f{file}").st_size
            client.expect("size in directory", found, size_of(directory, file))
        with client.timed("open in directory"):
            os.close(os.open(f"f{file}", os.O_RDONLY))
        with client.timed("held listing"):
            if not listing:
                listing.append(os.scandir(large))
            for _ in range(40):
                entry = next(listing[0], None)
                if entry is None:
                    client.expect("held listing", sorted(seen), wanted)
                    listing.clear()
                    seen.clear()
                    return
                seen.append(entry.name)

    return step


ROLES = {"walk": walk, "read": read, "hold": hold, "stay": stay}


def main() -> None:
    role, mount, backing, stop, report = sys.argv[1:]
    client = Client(mount, backing)
    step = (ROLES | WRITERS | COPIERS | MOVERS)[role](client)
    for number in itertools.count():
        if number >= LEAST_STEPS and os.path.exists(stop):
            break
        step()
    with open(report, "w") as file:
        counted = {"done": client.done, "errors": client.errors, "wrong": client.wrong[:20]}
        json.dump({**counted, "wrongs": len(client.wrong), "long": client.long}, file)


if __name__ == "__main__":
    main()
