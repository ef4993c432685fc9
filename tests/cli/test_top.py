"""`zcfuse top`, as a process and as a function of two status documents."""

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from rich.console import Console

from tests.cli.conftest import DEADLINE_S, refused
from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.admin.status._document import HotFile, StatusDocument
from zcfuse.cli._output import duration
from zcfuse.cli.top._model import between
from zcfuse.cli.top._view import render
from zcfuse.datapath import Latency

LONG = "a/very/long/path/" * 12 + "file.jpg"


def times(*buckets):
    count = sum(n for *_, n in buckets)
    return Latency(count, 0, buckets[-1][1] - 1 if buckets else 0, buckets).described()


def document(reads=0, uptime=10.0, pid=1, hot=()):
    latency = times((1 << 14, 20480, reads)) if reads else times()
    path = {"requests": reads, "bytes": reads * 4096}
    return StatusDocument(
        pid=pid,
        source="/data",
        mountpoint="/mnt/zc",
        device="0:40",
        uptime_s=uptime,
        options={},
        control={"nodes": 1, "open_files": 0},
        datapath={
            "transport": {"kind": "dev"},
            "requests": {"READ": reads, "INIT": 1},
            "upcalls": {"INIT": 1},
            "paths": {"splice": path, "pool": {"requests": 0, "bytes": 0}},
            "opens": {"passthrough": 3, "cached": 2},
            "fallbacks": {"passthrough: " + "no " * 60: 2},
            "latency": {
                "operations": {"READ": latency, "INIT": times((1 << 20, 1 << 21, 1))},
                "upcalls": {"INIT": times((1 << 20, 1 << 21, 1))},
                "paths": {"splice": latency},
            },
            "lock_budget": [4096, 8192],
        },
        threads=[],
        hot_files=list(hot),
    )


def drawn(view, width, height=None):
    console = Console(width=width, height=height or 100, file=io.StringIO(), highlight=False)
    with console.capture() as captured:
        console.print(render(view, width, height, "q quit"))
    return captured.get().splitlines()


def row(lines, name):
    """The cells of the first row with this name, in any column."""
    return next(line.split() for line in lines if name in line.split())


def test_rates_are_of_the_time_between_two_documents():
    view = between(document(100), document(150, uptime=12.0), 2.0)
    read = next(row for row in view.operations if row.name == "READ")
    assert (read.rate, read.total, read.latency.count) == (25, 150, 50)
    assert view.operations[0].name == "all"
    splice = next(row for row in view.paths if row.name == "splice")
    assert (splice.read_rate, splice.byte_rate) == (25, 25 * 4096)


def test_without_an_earlier_document_rates_are_those_since_the_mount():
    for earlier in (None, document(5, pid=2)):
        view = between(earlier, document(100), 1.0)
        assert view.since_mount
        assert next(row for row in view.operations if row.name == "READ").rate == 10


def test_a_file_that_was_not_seen_before_has_no_rate_yet():
    was = HotFile("old", 1, 1, 10)
    now = [msgspec.structs.replace(was, reads=5), HotFile("new", 900, 0, 0)]
    view = between(document(hot=[was]), document(hot=now), 2.0)
    assert [(row.path, row.rate) for row in view.files] == [("old", 2.0), ("new", None)]


def test_reads_of_passthrough_files_are_not_made_up():
    view = between(None, document(10), 1.0)
    passthrough = next(row for row in view.paths if row.name == "passthrough")
    assert (passthrough.opens, passthrough.reads, passthrough.bytes) == (3, None, None)


@pytest.mark.parametrize("width", [60, 80, 100, 160, 200])
@pytest.mark.parametrize("height", [None, 10, 24, 50])
def test_a_view_fits_the_terminal(width, height):
    hot = [HotFile(f"{number}/{LONG}", 10**9, 10**9, 10**15) for number in range(40)]
    lines = drawn(between(None, document(10**10, hot=hot), 1.0), width, height)
    assert max(map(len, lines)) <= width
    assert height is None or len(lines) <= height
    if height != 10:
        for word in ("READ", "splice", "p99.9", "file.jpg"):
            assert any(word in line for line in lines), word


def test_a_small_terminal_shows_requests_and_paths_below_the_header():
    lines = drawn(between(None, document(100), 1.0), 60, 12)
    assert len(lines) <= 12
    assert row(lines, "READ")[1] == "10"
    assert any(line.startswith("path ") for line in lines)
    assert not any("\u2026" in line for line in lines[2:])


def test_the_figures_stand_where_their_columns_are():
    lines = drawn(between(None, document(100), 1.0), 80)
    assert row(lines, "READ") == [
        "READ",
        "10",
        "100",
        "18.4",
        "us",
        "20.4",
        "us",
        "20.5",
        "us",
        "20.5",
        "us",
    ]
    assert row(lines, "splice")[:4] == ["splice", "10", "100", "40.0"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1.00 us"),
        (18_249, "18.2 us"),
        (999_499, "999 us"),
        (999_500, "1.00 ms"),
        (137_000_000_000, "137 s"),
    ],
)
def test_a_time_has_three_digits(nanoseconds, text):
    assert duration(nanoseconds) == text


@requires("mounting")
def test_once_prints_one_view(mounted, zcfuse, source):
    with open(os.path.join(source, "some-file"), "wb") as file:
        file.write(bytes(5000))
    daemon = mounted("--path", "pool")
    daemon.run("cat", daemon.path("some-file"))
    result = zcfuse("top", "--once", daemon.mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert daemon.mountpoint in lines[0]
    assert row(lines, "READ")[2] == "1"
    assert row(lines, "some-file")[-1] == "some-file"
    assert zcfuse("top", daemon.mountpoint).stdout.count("p99.9") >= 1


@requires("mounting")
def test_the_status_document_has_quantiles_and_hot_files(mounted, source):
    os.mkdir(os.path.join(source, "dir"))
    with open(os.path.join(source, "dir", "file"), "wb") as file:
        file.write(bytes(5000))
    for options in ((), ("--no-directory-lease",)):
        daemon = mounted("--path", "pool", *options)
        daemon.run("cat", daemon.path("dir", "file"))
        document = daemon.status()
        read = document["datapath"]["latency"]["operations"]["READ"]
        assert read["count"] == document["datapath"]["requests"]["READ"] == 1
        assert 0 < read["p50_ns"] <= read["p99_ns"] <= read["p999_ns"] <= read["max_ns"]
        (hot,) = document["hot_files"]
        assert (hot["path"], hot["opens"], hot["reads"], hot["bytes"]) == ("dir/file", 1, 1, 5000)
        daemon.unmount()


@requires("mounting")
def test_a_naive_mount_has_what_python_counts(mounted, zcfuse):
    daemon = mounted("--path", "naive")
    result = zcfuse("top", daemon.mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    assert "no data plane" in result.stdout


def test_what_is_no_mount_is_refused(zcfuse, tmp_path):
    refused(zcfuse("top", str(tmp_path)), 2, "not a zcfuse mount")
    refused(zcfuse("top", "--interval", "0", str(tmp_path)), 2, "--interval")


class Terminal:
    """``zcfuse top`` on a new terminal."""

    def __init__(self, *arguments):
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zcfuse", "top", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": CHECKOUT, "TERM": "xterm", "COLUMNS": "100"},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, word):
        deadline = time.monotonic() + DEADLINE_S
        while word not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._take(0.1)
        self.shown = self.shown.partition(word)[2]

    def press(self, key):
        os.write(self._master, key)

    def end(self):
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self._take(0.05)
        self._take(0)
        return self.process.wait(1)

    def close(self):
        self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)

    def _take(self, seconds):
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], seconds)[0]:
                part = os.read(self._master, 1 << 16)
                if not part:
                    return
                self.shown += part.decode(errors="replace")
                seconds = 0


@pytest.fixture
def terminal():
    with contextlib.ExitStack() as ends:

        def make(*arguments):
            made = Terminal(*arguments)
            ends.callback(made.close)
            return made

        yield make


@requires("mounting")
def test_the_live_view_is_refreshed_minds_its_keys_and_ends(mounted, terminal):
    daemon = mounted()
    live = terminal("--interval", "0.2", daemon.mountpoint)
    live.wait_for("rates: since the mount")
    live.wait_for("rates: last 0.")
    live.press(b"t")
    live.wait_for("rates: since the mount")
    live.press(b"tsq")
    assert live.end() == 0
    interrupted = terminal("--interval", "0.2", daemon.mountpoint)
    interrupted.wait_for("last 0.")
    interrupted.process.send_signal(signal.SIGINT)
    assert interrupted.end() == 0


@requires("mounting")
def test_the_live_view_says_that_the_mount_has_gone(mounted, terminal):
    daemon = mounted()
    live = terminal("--interval", "0.2", daemon.mountpoint)
    live.wait_for("last 0.")
    daemon.unmount()
    assert live.end() == 1
    assert "the mount is gone" in live.shown


def test_a_mount_that_nobody_has_asked_anything_is_shown():
    idle = msgspec.structs.replace(document(), datapath={"transport": {"kind": "dev"}})
    for width in (80, 200):
        assert "/mnt/zc" in drawn(between(None, idle, 1.0), width)[0]
