"""Starts programs whose mounts survive them, and kills them under load.

``python -m tests.survive.programs --kills 100 [--kind mirror]`` is `tests.survive.load` for them.
"""

import argparse
import functools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support import abort, eventually, find_mount, let_pass
from tests.survive import tree
from tests.survive.load import Load, Report
from zcfuse.admin.status import find_mount as find_entry
from zcfuse.admin.status import holder_state, read_status_of
from zcfuse.linux import MountEntry

_CHECKOUT = os.path.join(os.path.dirname(__file__), "..", "..")
_PROGRAM = os.path.join(os.path.dirname(__file__), "program.py")
_END_S = 60.0
_LEAST_S, _MOST_S = 0.0, 1.0
LONG_WAIT_S = 120.0


class Program:
    """A running program with surviving mounts; `generations` of them as it began to serve."""

    def __init__(self, *mounts: str, wait: float = LONG_WAIT_S) -> None:
        self.process = subprocess.Popen(
            [sys.executable, _PROGRAM, str(wait), *mounts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": _CHECKOUT, "PYTHONFAULTHANDLER": "1"},
        )
        self.generations = self._served()

    def _served(self) -> list[int]:
        words = self.answer().split()
        assert words[:1] == ["serves"], words
        return [int(word) for word in words[1:]]

    def answer(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> str:
        """Give it a command; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        """SIGKILL, and wait until its parent has reaped it."""
        self.process.kill()
        self.process.communicate(timeout=_END_S)

    def end(self) -> int:
        """End it by the end of its input; return its exit status."""
        self.process.communicate(timeout=_END_S)
        return self.process.returncode


@contextmanager
def surviving_at(*mountpoints: str) -> Iterator[list[Program]]:
    """Yield a list for programs; at the end they, their mounts and the holders are gone."""
    programs: list[Program] = []
    places = [os.path.realpath(one) for one in mountpoints]  # later a look may wait
    try:
        yield programs
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()
        for mountpoint in places:
            left = find_mount(mountpoint)
            if left is None:
                continue
            entry = find_entry(mountpoint)
            held = holder_state(entry)
            abort(left)
            subprocess.run(["umount", "-l", mountpoint], check=False)
            assert held is None or eventually(functools.partial(_has_let_go, held.holder, entry))


def _is_gone(process: int) -> bool:
    return not os.path.exists(f"/proc/{process}/exe")


def _has_let_go(holder: int, entry: MountEntry) -> bool:
    """Whether a holder has ended, or its mount has: a later mount may have the number by then."""
    return _is_gone(holder) or holder_state(entry) is None


def run(kind: str, kills: int, *, seed: int | None = None) -> Report:
    """Mount by a program, load, kill it `kills` times, each time start the next one, and report."""
    chosen = random.Random(seed)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="zcfuse-survive-") as work:
        mountpoint = os.path.join(work, "mount")
        backing = os.path.join(work, "backing")
        os.mkdir(mountpoint)
        os.mkdir(backing)
        tree.make(backing)
        with surviving_at(mountpoint) as programs:
            programs.append(Program(kind, backing, mountpoint))
            entry = find_entry(mountpoint)
            load = Load(mountpoint, backing, work)
            times: list[tuple[float, float]] = []
            try:
                for _ in range(kills):
                    let_pass(chosen.uniform(_LEAST_S, _MOST_S))
                    began = time.monotonic()
                    programs.pop().kill()
                    programs.append(Program(kind, backing, mountpoint))
                    report.status = read_status_of(entry)
                    assert report.status.survival is not None
                    report.kills += 1
                    report.pauses.append(report.status.survival.last[-1].pause_s)
                    times.append((began, time.monotonic()))
            finally:
                load.end(report, times)
                load.kill()
            report.status = read_status_of(entry)
            assert programs[-1].tell("unmount") == "unmounted"
            assert programs[-1].end() == 0
            holder = report.status.processes["holder"]
            if not eventually(functools.partial(_is_gone, holder)):
                report.left.append(f"holder {holder}")
    return report


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kind", choices=("mirror", "paths"), default="mirror")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    report = run(given.kind, given.kills, seed=given.seed)
    print(f"program, {given.kind}: {report.text()}")
    return 0 if report.clean() else 1


if __name__ == "__main__":
    sys.exit(main())
