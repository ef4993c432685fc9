"""The rounds of the comparison: each target is mounted with an empty cache, read and unmounted."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from zcfuse.bench._daemons import MountFailedError, child_environment, running, zcfuse_command
from zcfuse.bench.remote._server import LARGE, MANY, NAME, RANDOM, SLOW, Bucket

LOCAL: Final = "local disk"
BARE: Final = "bare client"
ZCFUSE: Final = "zcfuse"
CONNECTIONS: Final = 16

ROWS: Final = (
    "first byte, ms",
    "cold sequential, MB/s",
    "cold sequential, slow connections, MB/s",
    "cold random 4 KiB, ms",
    "fetched a byte read",
    "cached, MB/s",
    "listing, s",
    "memory, MiB",
)
_FIRST, _COLD, _SLOW, _RANDOM, _FETCHED, _CACHED, _LISTING, _MEMORY = ROWS
_READS: Final = 64
# The server has no certificate, and rclone refuses a bundle from the environment.
_NO_BUNDLE: Final = ("env", "-u", "AWS_CA_BUNDLE")
_CLIENT_S: Final = 300.0
_FSSPEC: Final = (
    "import sys, fsspec, fsspec.fuse\n"
    "fs = fsspec.filesystem('s3', anon=True, endpoint_url=sys.argv[1])\n"
    "fsspec.fuse.run(fs, sys.argv[2] + '/', sys.argv[3], foreground=True, threads=False)"
)


class Row(msgspec.Struct):
    """A measurement: by target, one value a round."""

    name: str
    values: dict[str, list[float]] = {}

    def median(self, target: str) -> float | None:
        """Return the middle of a target's values, None without one."""
        values = self.values.get(target)
        return statistics.median(values) if values else None


class RemoteReport(msgspec.Struct):
    """The rows, the targets in order, and why others are missing."""

    rounds: int
    size: int
    keys: int
    rows: list[Row]
    targets: list[str]
    unavailable: dict[str, str] = {}


class _Work(msgspec.Struct, frozen=True):
    seconds: float
    operations: int
    bytes: int

    @property
    def mb_per_s(self) -> float:
        return self.bytes / self.seconds / 1e6


def run_remote(
    bucket: Bucket, size: int, rounds: int, peers: bool, step: Callable[[str], None]
) -> RemoteReport:
    """Measure all targets in turn, in each round.

    Parameters:
        bucket: what is mounted.
        size: bytes of its large objects.
        rounds: how often.
        peers: whether to mount by other programs too.
        step: is called with the name of each target before its turn.
    """
    mounts = {ZCFUSE: _zcfuse}
    if peers:
        mounts.update({"rclone": _rclone, "s3fs": _s3fs, "fsspec": _fsspec})
    targets = [LOCAL, BARE, *mounts]
    rows = {name: Row(name) for name in ROWS}
    report = RemoteReport(rounds, size, bucket.keys, list(rows.values()), targets)

    def keep(target: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            rows[name].values.setdefault(target, []).append(value)

    for _ in range(rounds):
        step(LOCAL)
        keep(LOCAL, {_CACHED: _work("sequential", bucket.path(LARGE)).mb_per_s})
        step(BARE)
        keep(BARE, {_COLD: _bare(bucket, LARGE, size).mb_per_s})
        keep(BARE, {_SLOW: _bare(bucket, SLOW, size).mb_per_s})
        for name, command in mounts.items():
            step(name)
            if name in report.unavailable:
                continue
            try:
                _measure(bucket, command, functools.partial(keep, name))
            except (MountFailedError, subprocess.SubprocessError) as error:
                report.unavailable[name] = str(error)
    report.targets = [name for name in targets if any(name in row.values for row in rows.values())]
    return report


def _measure(
    bucket: Bucket,
    command: Callable[[Bucket, str, str], Sequence[str]],
    keep: Callable[[dict[str, float]], None],
) -> None:
    """Mount with an empty cache and measure; values before a failure count."""
    with tempfile.TemporaryDirectory(dir=bucket.base) as base:
        where, cache = os.path.join(base, "mnt"), os.path.join(base, "cache")
        os.mkdir(where)
        os.mkdir(cache)
        with running(command(bucket, where, cache), where) as mount:
            paths = [mount.path(name) for name in bucket.small]
            first = _work("first_byte", *paths)
            keep({_FIRST: first.seconds / first.operations * 1e3})
            keep({_SLOW: _work("sequential", mount.path(SLOW)).mb_per_s})
            keep({_COLD: _work("sequential", mount.path(LARGE)).mb_per_s})
            _work("sequential", mount.path(LARGE))  # the next open may be served in another way
            keep({_CACHED: _work("sequential", mount.path(LARGE)).mb_per_s})
            before = bucket.sent()
            found = _work("at_random", mount.path(RANDOM), str(_READS))
            keep({_RANDOM: found.seconds / found.operations * 1e3})
            keep({_FETCHED: (bucket.sent() - before) / found.bytes})
            listed = _work("listed", mount.path(MANY))
            if listed.operations == bucket.keys:
                keep({_LISTING: listed.seconds})
            keep({_MEMORY: _peak_kib(mount.pid) / 1024})


def _work(name: str, *arguments: str) -> _Work:
    command = [sys.executable, "-P", "-m", "zcfuse.bench.remote._reader", name, *arguments]
    done = subprocess.run(
        command, capture_output=True, timeout=_CLIENT_S, check=True, env=child_environment()
    )
    return msgspec.json.decode(done.stdout, type=_Work)


def _bare(bucket: Bucket, key: str, size: int) -> _Work:
    host = bucket.endpoint.partition("://")[2]
    return _work("bare", host, f"/{NAME}/{key}", str(size), str(CONNECTIONS))


def _peak_kib(pid: int) -> int:
    """Return the most memory that a process and its children had, each at its own time."""
    total = 0
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status") as status:
            found = dict(line.split(":", 1) for line in status)
        total = int(found["VmHWM"].split()[0])
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            total += sum(_peak_kib(int(child)) for child in children.read().split())
    return total


def _zcfuse(bucket: Bucket, where: str, cache: str) -> Sequence[str]:
    options = [f"--cache-dir={cache}", "--cache-floor=0", f"--connections={CONNECTIONS}"]
    driver = ["--option=anon=true", f"--option=endpoint_url={bucket.endpoint}"]
    return zcfuse_command(f"s3://{NAME}", where, [*options, *driver])


def _rclone(bucket: Bucket, where: str, cache: str) -> Sequence[str]:
    source = f":s3,provider=Other,endpoint='{bucket.endpoint}':{NAME}"
    options = ["--config=", "--read-only", "--vfs-cache-mode=full", f"--cache-dir={cache}"]
    return [*_NO_BUNDLE, "rclone", "mount", source, where, *options]


def _s3fs(bucket: Bucket, where: str, cache: str) -> Sequence[str]:
    options = f"ro,url={bucket.endpoint},use_path_request_style,public_bucket=1,use_cache={cache}"
    if shutil.which("s3fs") is None:
        raise MountFailedError("s3fs: not installed")
    return ["s3fs", NAME, where, "-f", "-o", f"{options},parallel_count={CONNECTIONS}"]


def _fsspec(bucket: Bucket, where: str, cache: str) -> Sequence[str]:
    return [sys.executable, "-P", "-c", _FSSPEC, bucket.endpoint, NAME, where]
