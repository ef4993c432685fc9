"""Programs that another user runs against a mount, each an attack on other users.

Each knows `source`, where the user may write in `own`, and `mount`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

ATTACKER: Final = 65534
END_S: Final = 20


def _stats(directory: str, count: int) -> str:
    return f"""
held = []
def attack(name):
    os.stat(os.path.join(mount, {directory!r}, name))
for number in range({count}):
    begin(attack, f"{{number}}")
"""


def _reads(name: str, flags: str, count: int) -> str:
    return f"""
held = [os.open(os.path.join(mount, {name!r}), {flags})]
def attack(_):
    os.pread(held[0], 1, int.from_bytes(os.urandom(2)) << 22)
for number in range({count}):
    begin(attack, number)
"""


# Each says "ready" when it stands, and stays until its standard input ends.
LEASES: Final = """
signal.signal(signal.SIGIO, signal.SIG_IGN)
names = [f"leased{n}" for n in range(24 * os.cpu_count())]
held = [os.open(os.path.join(source, "own", name), os.O_RDWR | os.O_CREAT) for name in names]
for fd in held:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
def attack(name):
    os.close(os.open(os.path.join(mount, "own", name), os.O_RDONLY))
for name in names:
    begin(attack, name)
"""
DIRECTORIES: Final = """
held = [os.open(mount, os.O_RDONLY | os.O_DIRECTORY) for _ in range(800)]
"""
FILES: Final = """
held = []
for number in range(400):
    os.close(os.open(os.path.join(source, "own", f"{number}"), os.O_RDWR | os.O_CREAT))
for number in range(400):
    try:
        held.append(os.open(os.path.join(mount, "own", f"{number}"), os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE, error
"""
# Each listing is of another version of the directory, so that none can be shared.
LISTINGS: Final = """
own = os.path.join(source, "own")
held = []
def half_read():
    os.utime(own)
    fd = os.open(os.path.join(mount, "own"), os.O_RDONLY | os.O_DIRECTORY)
    held.append(fd)
    with os.scandir(fd) as entries:
        next(entries)
def attack(_):
    half_read()
    os.close(held.pop())
for _ in range(40):
    with contextlib.suppress(OSError):
        half_read()
for number in range(3):
    begin(attack, number)
"""
POLICY: Final = _stats("slow", 300)
READS: Final = _reads("fetched", "os.O_RDONLY", 300)
# Time for the first requests of an attack to reach what does not answer.
_PAUSE: Final = "threading.Event().wait(1)\n"
# Reads that never end, at first without a pause: the disk answers once the attack is over.
SILENCE: Final = _reads("silent", "os.O_RDONLY | os.O_DIRECT", 100) + _PAUSE
LOOKUPS: Final = _stats("still", 100) + _PAUSE
# All requests of one processor.
WIDE_LISTINGS: Final = """
held = []
os.sched_setaffinity(0, {0})
def attack(number):
    os.listdir(os.path.join(mount, f"wide{number}"))
for number in range(12):
    begin(attack, number)
"""
CHANGES: Final = """
own = os.path.join(mount, "own")
held = [os.open(os.path.join(own, f"changed{n}"), os.O_RDWR | os.O_CREAT) for n in range(20)]
def write(fd):
    os.pwrite(fd, b"bytes", 0)
    os.fsync(fd)
def make(name):
    os.mkdir(os.path.join(own, name))
    os.rmdir(os.path.join(own, name))
for fd in held:
    begin(write, fd)
    begin(make, f"made{fd}")
"""
# The kernel lets one change of a directory's names through at a time.
MOVES: Final = """
held = []
def attack(directory):
    os.rename(os.path.join(directory, "from"), os.path.join(directory, "to"))
    os.rename(os.path.join(directory, "to"), os.path.join(directory, "from"))
directories = [os.path.join(mount, "own", f"moves{number}") for number in range(12)]
for directory in directories:
    os.mkdir(directory)
    os.close(os.open(os.path.join(directory, "from"), os.O_CREAT | os.O_WRONLY))
for directory in directories:
    begin(attack, directory)
"""
SYNCS: Final = """
own = os.path.join(mount, "own")
held = [os.open(os.path.join(own, f"synced{n}"), os.O_RDWR | os.O_CREAT) for n in range(100)]
def attack(fd):
    os.pwrite(fd, b"bytes", 0)
    os.fsync(fd)
for fd in held:
    begin(attack, fd)
threading.Event().wait(1)
"""
# The disk answers nothing from the first of these requests on.
COLD: Final = """
held = []
os.close(os.open(os.path.join(source, "own", "hang"), os.O_CREAT | os.O_WRONLY))
def attack(name):
    os.listdir(os.path.join(mount, name))
for number in range(60):
    begin(attack, f"cold{number}")
threading.Event().wait(1)
"""
# The interpreter may lie where only root reaches it.
BEGIN: Final = f"""
import contextlib, errno, fcntl, os, resource, signal, sys, threading
source, mount = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
os.setgroups([])
os.setgid({ATTACKER})
os.setuid({ATTACKER})
over = os.path.join(source, "own", "over")
with contextlib.suppress(FileNotFoundError):
    os.unlink(over)
def begin(attack, what):
    def again():
        while True:
            with contextlib.suppress(OSError):
                attack(what)
            threading.Event().wait(0.01)
    threading.Thread(target=again, daemon=True).start()
"""
STAY: Final = """
print('ready', flush=True)
sys.stdin.read()
open(over, 'w').close()
[os.close(fd) for fd in held]
os._exit(0)
"""


@contextlib.contextmanager
def attack(code: str, source: str, mountpoint: str) -> Iterator[None]:
    """Run an attack of another user until the block ends."""
    argv = [sys.executable, "-c", BEGIN + code + STAY]
    with subprocess.Popen(
        [*argv, source, mountpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            # Not killed: an open under way ends when the leases are given back.
            process.stdin.close()
            process.wait(END_S)
