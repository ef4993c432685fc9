"""Kills a mount of a server and its workers while cold files are read, and compares digests.

``python -m tests.remote.kills --kills 100`` prints a report, and fails after a wrong byte. `run`
does it for a test.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.remote.server import WebServer
from tests.support import Daemon

_CLIENT_S = 120.0
_MOST_PAUSE_S = 1.0
_LEAST_BYTES, _MOST_BYTES = 1 << 20, 12 << 20
_WHOLE = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
# A killed client must have read right bytes too.
_PARTS = (
    "import os, random, sys; good = open(sys.argv[2], 'rb').read()\n"
    "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
    "while True:\n"
    "    at = random.randrange(len(good))\n"
    "    try: data = os.pread(fd, 65536, at)\n"
    "    except OSError: break\n"
    "    if data != good[at : at + len(data)] or not data: print('wrong at', at); break"
)


@dataclass
class Report:
    """The result of a run: kills, files that were incomplete then, and wrong files."""

    kills: int = 0
    cut: int = 0
    refetched_bytes: int = 0
    file_bytes: int = 0
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the report as a line."""
        return (
            f"kills {self.kills}, in the middle of a fetch {self.cut}, wrong {self.wrong},"
            f" {self.refetched_bytes:,} of {self.file_bytes:,} bytes fetched after the kills"
        )


def run(kills: int, base: Path, seed: int = 18) -> Report:
    """Kill so often; each time another file is cold. Raises nothing for a wrong byte."""
    chance = random.Random(seed)
    report = Report()
    web = WebServer({})
    daemon = _mounted(web, base, 0)
    try:
        for number in range(1, kills + 1):
            name = f"file-{number}"
            data = chance.randbytes(chance.randrange(_LEAST_BYTES, _MOST_BYTES))
            web.files = {name: data}
            (base / "good").write_bytes(data)
            _kill_while_read(web, daemon, name, base, chance, report)
            report.kills += 1
            web.faulty = 0
            report.cut += 0 < web.fetched < len(data)
            web.ranges.clear()
            daemon = _mounted(web, base, number)
            good = hashlib.sha256(data).hexdigest()
            for _ in range(2):
                if _digest(daemon, name) != good:
                    report.wrong.append(name)
            report.refetched_bytes += web.fetched
            report.file_bytes += len(data)
            web.ranges.clear()
    finally:
        daemon.unmount()
        web.close()
    return report


def _mounted(web: WebServer, base: Path, number: int) -> Daemon:
    where = base / f"mnt-{number}"
    where.mkdir()
    limits = ("--cache-dir", str(base / "cache"), "--cache-floor", "0", "--connections", "4")
    options = (*limits, "--cache-timeout", "0")
    return Daemon(web.url, str(where), *options, log=str(base / "log"))


def _kill_while_read(
    web: WebServer, daemon: Daemon, name: str, base: Path, chance: random.Random, report: Report
) -> None:
    web.fault, web.faulty = "slow", 10**6
    path, good = daemon.path(name), str(base / "good")
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for arguments in ((_WHOLE, path), (_PARTS, path, good))
    ]
    # The client's start takes a while, during which nothing is fetched.
    deadline = time.monotonic() + _CLIENT_S
    while not web.fetched and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(chance.uniform(0, _MOST_PAUSE_S))
    workers = told(daemon)["workers"]
    assert isinstance(workers, list)
    victims = [daemon.pid, *workers]
    chance.shuffle(victims)
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    daemon.kill()
    subprocess.run(["umount", "-fl", daemon.mountpoint], check=True, timeout=_CLIENT_S)
    for reader in readers:
        reader.kill()
        output = reader.communicate()[0].decode()
        if "wrong" in output:
            report.wrong.append(f"{name} {output}")


def told(daemon: Daemon) -> dict[str, object]:
    """The counts of a mount's only server."""
    [remote] = daemon.status()["tree"]["remotes"].values()
    return dict(remote)


def _digest(daemon: Daemon, name: str) -> str:
    return daemon.python(_WHOLE, daemon.path(name), timeout=_CLIENT_S).stdout.decode().strip()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=18)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as base:
        report = run(arguments.kills, Path(base), arguments.seed)
    print(report.text())
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
