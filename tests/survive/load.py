"""Kills the daemon of a surviving mount under load, and counts what clients notice.

``python -m tests.survive.load --kills 500 [--kind mirror] [--by kill]`` prints a report and fails
if a client got an error, wrong bytes, or no answer. `run` does it for a test.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support import abort, eventually, find_mount, let_pass
from tests.survive import copies, deaths, tree
from tests.survive.client import ROLES
from tests.survive.copies import COPIERS, MOVERS
from tests.survive.writers import WRITERS
from zcfuse.admin.status import StatusDocument, StatusError, read_status_of
from zcfuse.admin.status import find_mount as find_entry
from zcfuse.linux import MountEntry

_CHECKOUT = os.path.join(os.path.dirname(__file__), "..", "..")
# By kind, the options of a Mirror; the path `pool` has each write pass the daemon.
_OF_MIRRORS = {
    "mirror": (),
    "immutable": ("--immutable",),
    "writable": ("--rw",),
    "writable-pool": ("--rw", "--path", "pool"),
}
# The same of a union whose upper layer clients change.
_OF_WRITABLE_UNIONS = {
    "upper": (),
    "upper-pool": ("--path", "pool"),
    "upper-marks": ("--metacopy", "--redirect-dir"),
}
_COMMAND_S = 60.0
_SUCCESSOR_S = 60.0
_LAST_ANSWER_S = 60.0  # a copy waits for the disk
# From one takeover to the next kill.
_LEAST_S, _MOST_S = 0.0, 1.5


@dataclass
class Report:
    """The result of a run; times in seconds."""

    kills: int = 0
    done: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    status: StatusDocument | None = None

    def clean(self) -> bool:
        """Whether no client noticed anything but time, and nothing stayed behind."""
        return not (self.errors or self.wrong or self.hung or self.left)

    def text(self) -> str:
        """Return the report."""
        survival = self.status.survival if self.status else None
        lines = [
            f"kills {self.kills}, operations {self.done.total():,},"
            f" requests sent again {survival.resent if survival else '?'}",
            f"errors {dict(self.errors)}",
            f"wrong {len(self.wrong)} {self.wrong[:5]}",
            f"hung {self.hung}, left behind {self.left}",
            f"the daemon's pauses: {_quantiles(self.pauses)}",
            f"the longest operation over a kill: {_quantiles(self.stalls)}",
        ]
        return "\n".join(lines)


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 for share in (0.5, 0.99)]
    return f"median {at[0]:.1f} ms, p99 {at[1]:.1f} ms, longest {ordered[-1] * 1000:.1f} ms"


def arguments_of(kind: str, work: str) -> tuple[str, list[str]]:
    """Make a backing tree of a kind below `work`; return it and the arguments of the mount."""
    backing = os.path.join(work, "backing")
    os.mkdir(backing)
    tree.make(backing)
    if kind in _OF_MIRRORS:
        return backing, [backing, *_OF_MIRRORS[kind]]
    if kind in _OF_WRITABLE_UNIONS:
        return _writable_union(backing, work, _OF_WRITABLE_UNIONS[kind])
    if kind == "union":
        upper = os.path.join(work, "upper")
        os.mkdir(upper)
        os.rename(os.path.join(backing, "d3"), os.path.join(upper, "d3"))
        whole = os.path.join(work, "whole")
        os.mkdir(whole)
        for layer in (backing, upper):
            subprocess.run(["cp", "-a", f"{layer}/.", whole], check=True)
        return whole, ["--layer", upper, "--layer", backing]
    if kind == "archive":
        path = os.path.join(work, "tree.tar")
        with tarfile.open(path, "w") as archive:
            archive.add(backing, arcname=".")
        return backing, [path]
    if kind == "image":
        path = os.path.join(work, "tree.zcf")
        freeze = [sys.executable, "-m", "zcfuse", "freeze", backing, path]
        subprocess.run(freeze, check=True, capture_output=True, cwd=_CHECKOUT, timeout=60)
        return backing, ["--engine", "fuse", path]
    path = os.path.join(work, "tree.jsonl")
    with open(path, "w") as manifest:
        for directory, _, names in os.walk(backing):
            for name in names:
                source = os.path.join(directory, name)
                entry = {"path": os.path.relpath(source, backing), "file": source}
                manifest.write(json.dumps(entry) + "\n")
    return backing, ["--tree", path]


def _writable_union(lower: str, work: str, options: Iterable[str]) -> tuple[str, list[str]]:
    """Make an upper layer; return a tree that shows where the writers' directories come to be."""
    upper, whole = os.path.join(work, "upper"), os.path.join(work, "whole")
    os.mkdir(upper)
    subprocess.run(["cp", "-a", lower, whole], check=True)
    for name in WRITERS:
        os.symlink(os.path.join(upper, name), os.path.join(whole, name))
    copies.make(lower)
    return whole, ["--layer", lower, "--upper", upper, *options]


def _roles_of(arguments: list[str]) -> Iterable[str]:
    roles = [*ROLES]
    roles += [*WRITERS] if "--rw" in arguments or "--upper" in arguments else []
    roles += [*COPIERS] if "--upper" in arguments else []
    return [*roles, *MOVERS] if "--redirect-dir" in arguments else roles


class Load:
    """The clients of one mount."""

    def __init__(
        self, mountpoint: str, backing: str, work: str, roles: Iterable[str] = tuple(ROLES)
    ) -> None:
        self._stop = os.path.join(work, "stop")
        self._reports = {role: os.path.join(work, f"{role}.json") for role in roles}
        trees = (mountpoint, backing)
        self._clients = {
            role: subprocess.Popen(
                [sys.executable, "-m", "tests.survive.client", role, *trees, self._stop, report],
                cwd=_CHECKOUT,
                stderr=subprocess.PIPE,
            )
            for role, report in self._reports.items()
        }

    def end(self, report: Report, kills: list[tuple[float, float]]) -> None:
        """Stop the clients, and add what they saw."""
        with open(self._stop, "w"):
            pass
        deadline = time.monotonic() + _LAST_ANSWER_S
        for role, client in self._clients.items():
            try:
                client.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                report.hung.append(role)
                client.kill()
                continue
            assert client.stderr is not None
            if client.returncode != 0:
                report.errors[f"{role}: {client.stderr.read().decode()[-300:]}"] += 1
                continue
            with open(self._reports[role]) as file:
                seen = json.load(file)
            report.done.update(seen["done"])
            report.errors.update(seen["errors"])
            report.wrong += seen["wrong"] + ["more"] * (seen["wrongs"] - len(seen["wrong"]))
            report.stalls += _stalls(seen["long"], kills)

    def kill(self) -> None:
        for client in self._clients.values():
            if client.poll() is None:
                client.kill()


def _stalls(
    operations: list[tuple[float, float, str]], kills: list[tuple[float, float]]
) -> list[float]:
    """Return the longest operation over each kill, of one client."""
    return [
        max((ended - began for began, ended, _ in operations if began <= until and ended >= at),
            default=0.0)
        for at, until in kills
    ]  # fmt: skip


def zcfuse(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command; it must succeed unless `check` is False."""
    result = subprocess.run(
        [sys.executable, "-m", "zcfuse", *arguments],
        cwd=_CHECKOUT,
        timeout=_COMMAND_S,
        capture_output=True,
        text=True,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"zcfuse {arguments}: {result.stderr}")
    return result


@contextmanager
def mounted(mountpoint: str, arguments: list[str], log: str) -> Iterator[MountEntry]:
    """Mount with ``--survive``; whatever happens, nothing stays mounted."""
    zcfuse("mount", *arguments, mountpoint, "--survive", "--log-file", log)
    entry = find_entry(mountpoint)
    try:
        yield entry
        zcfuse("umount", "--wait", "10", mountpoint)
    finally:
        left = find_mount(mountpoint)
        if left is not None:
            abort(left)
            subprocess.run(["umount", "-l", mountpoint], check=False)


def successor(entry: MountEntry, generation: int) -> StatusDocument:
    """Return the status of a daemon after a generation. It never looks at the mount."""
    found: list[StatusDocument] = []

    def serves() -> bool:
        with suppress(StatusError):
            document = read_status_of(entry, timeout=2.0)
            if document.survival is not None and document.survival.generation > generation:
                found.append(document)
        return bool(found)

    assert eventually(serves, _SUCCESSOR_S), f"no successor of generation {generation}"
    return found[0]


def run(
    kind: str,
    kills: int,
    *,
    by: str = "kill",
    seed: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Mount, load, kill the daemon `kills` times at random moments, unmount, and report.

    `by` is one of `deaths.WAYS`, or ``upgrade``: ``zcfuse upgrade`` replaces the daemon instead.
    """
    chosen = random.Random(seed)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="zcfuse-survive-") as work:
        mountpoint = os.path.join(work, "mount")
        os.mkdir(mountpoint)
        log = os.path.join(work, "log")
        backing, arguments = arguments_of(kind, work)
        with mounted(mountpoint, arguments, log) as entry:
            document = successor(entry, 0)
            load = Load(mountpoint, backing, work, _roles_of(arguments))
            times: list[tuple[float, float]] = []
            try:
                for number in range(kills):
                    let_pass(chosen.uniform(_LEAST_S, _MOST_S))
                    document = _replaced(entry, document, times, report, by, chosen)
                    if tell is not None and (number + 1) % 50 == 0:
                        tell(f"{number + 1} kills")
            finally:
                load.end(report, times)
                load.kill()
            report.status = read_status_of(entry)
        report.left = _left(report.status)
        if by == "starve":
            deaths.leave_groups(report.status)
        if tell is not None and not report.clean():
            with open(log) as file:
                tell("".join(file.readlines()[-40:]))
    return report


def _replaced(
    entry: MountEntry,
    document: StatusDocument,
    times: list[tuple[float, float]],
    report: Report,
    by: str,
    chosen: random.Random,
) -> StatusDocument:
    assert document.survival is not None
    began = time.monotonic()
    if by == "upgrade":
        zcfuse("upgrade", entry.mountpoint)
    else:
        deaths.WAYS[by](document, chosen)
    found = successor(entry, document.survival.generation)
    assert found.survival is not None
    pause = found.survival.last[-1].pause_s
    times.append((began, began + pause if by == "kill" else time.monotonic()))
    report.kills += 1
    report.pauses.append(pause)
    return found


def _left(document: StatusDocument) -> list[str]:
    """Return the processes of a mount that outlive its unmount."""
    left = set(document.processes.items())

    def gone() -> bool:
        left.difference_update(
            one for one in tuple(left) if not os.path.exists(f"/proc/{one[1]}/exe")
        )
        return not left

    eventually(gone, _LAST_ANSWER_S)
    return [f"{part} {pid}" for part, pid in left]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--kind", default="mirror")
    parser.add_argument("--by", choices=("upgrade", *deaths.WAYS), default="kill")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    status = 0
    for kind in given.kind.split(","):
        report = run(
            kind,
            given.kills,
            by=given.by,
            seed=given.seed,
            tell=lambda text: print(text, flush=True),
        )
        print(f"{kind}: {report.text()}", flush=True)
        status |= not report.clean()
    return status


if __name__ == "__main__":
    sys.exit(main())
