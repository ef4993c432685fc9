"""Clients of a mount, for a number of seconds: ``clients.py MOUNT SOURCE SECONDS``.

Threads read, map, list and look at files in every way, while one changes the source. Bytes that no
one changes must be those of the source. Prints how many operations were made.
"""

import contextlib
import itertools
import mmap
import os
import random
import sys
import threading
import time

THREADS = 6
STEADY = "steady"


def files(mount):
    return [os.path.join(above, name) for above, _, names in os.walk(mount) for name in names]


def read(path, choose):
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(3):
            os.pread(file.fileno(), choose.choice((1, 4096, 70_000, 300_000)),
                     choose.randrange(size + 1))  # fmt: skip
        with contextlib.suppress(OSError):
            os.lseek(file.fileno(), 0, os.SEEK_DATA)


def read_direct(path, choose):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 16) as buffer:
            os.preadv(fd, [buffer], 0)
    finally:
        os.close(fd)


def look_into_mapping(path, choose):
    # Only of a file that nobody shortens: beyond its end is SIGBUS.
    if STEADY not in path:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        view[choose.randrange(len(view))]


def look(path, choose):
    os.stat(path)
    os.listxattr(path)
    os.statvfs(path)
    os.listdir(os.path.dirname(path))
    with contextlib.suppress(OSError):
        os.stat(f"{path}-missing")


WAYS = (read, read, read_direct, look_into_mapping, look)


def work(mount, names, end, seed, counts):
    choose = random.Random(seed)
    while time.monotonic() < end:
        path = choose.choice(names)
        with contextlib.suppress(OSError):
            choose.choice(WAYS)(path, choose)
        counts[seed] += 1


def change(source, end):
    """Change other files than the steady ones, until the end."""
    place = os.path.join(source, "changing")
    os.makedirs(place, exist_ok=True)
    for number in itertools.count():
        if time.monotonic() > end:
            return
        path = os.path.join(place, f"f{number % 7}")
        with contextlib.suppress(OSError):
            with open(path, "wb") as file:
                file.write(os.urandom(1000 * (number % 90)))
            os.truncate(path, number % 500)
            os.rename(path, f"{path}x")
            if number % 3:
                os.unlink(f"{path}x")


def main():
    mount, source, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    end = time.monotonic() + seconds
    names = files(mount)
    assert names, "the mount shows no files"
    counts = [0] * THREADS
    threads = [
        threading.Thread(target=work, args=(mount, names, end, seed, counts))
        for seed in range(THREADS)
    ]
    if source:
        threads.append(threading.Thread(target=change, args=(source, end)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(counts))


main()
