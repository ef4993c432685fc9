"""`Mount.events` and `zcfuse trace` show what the mount answered, as its counts do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.conftest import Shows, command, write
from tests.support import Mounter, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

SIZE = 200_000
# Begins a trace; `traced(body)` then has the events of what a client did, to the last answer.
TRACED = """
import contextlib
traced = []
async def collect():
    async with contextlib.aclosing(served.events(0.01)) as found:
        async for event in found:
            traced.append(event)
globals().update(traced=traced)
trio.lowlevel.spawn_system_task(collect)
with trio.fail_after(10):
    while not served._tracer.is_on:
        await trio.lowlevel.checkpoint()
"""
DRAINED = """
before = -1
with trio.fail_after(10):
    while before < len(traced) or not any(e.operation == {last!r} for e in traced):
        before = len(traced)
        await trio.sleep(0.1)
return [(e.operation, e.path, e.bytes, e.served, e.pid, e.uid, e.latency_ns > 0, e.lost)
        for e in traced]
"""


def fields(events: list[Any], operation: str) -> list[Any]:
    return [event for event in events if event[0] == operation]


def test_events_name_the_file_the_client_and_the_way(source: str, shows: Shows) -> None:
    write(source, "file", os.urandom(SIZE))
    program, client = shows(
        "tree = Mirror(where)\noptions = MountOptions(path='pool', transport='dev')", where=source
    )
    program.run(TRACED)
    assert len(client.value("content('file')")) == SIZE
    events = program.run(DRAINED.format(last="RELEASE"))
    (looked,) = fields(events, "LOOKUP")
    assert looked[1] == "file"
    (opened,) = fields(events, "OPEN")
    assert opened[1:4] == ("file", SIZE, "cached")
    assert opened[4:] == (client.process.pid, os.getuid(), True, 0)
    reads = fields(events, "READ")
    assert {(event[1], event[3]) for event in reads} == {("file", "pool")}
    assert sum(event[2] for event in reads) == SIZE


@requires("passthrough")
def test_an_open_of_a_described_file_has_its_length_and_the_bytes_sent_with_it(
    source: str, shows: Shows
) -> None:
    where = write(source, "file", os.urandom(SIZE))
    program, client = shows(
        "tree = Dir({'whole': where, 'large': Slice(where, 1, 70_000)})\n"
        "tree.add('small', Slice(where, 1, 9))\n"
        "options = MountOptions(transport='dev')",
        where=where,
    )
    program.run(TRACED)
    for name, size in (("whole", SIZE), ("large", 70_000), ("small", 9)):
        assert len(client.value(f"content({name!r})")) == size
    events = program.run(DRAINED.format(last="RELEASE"))
    assert [event[1:4] for event in fields(events, "OPEN")] == [
        ("whole", SIZE, "passthrough"),
        ("large", 70_000, "cached"),
        ("small", 9, "pool"),
    ]
    assert {event[1] for event in fields(events, "READ")} == {"large"}


def test_python_answers_are_events_of_an_upcall(source: str, shows: Shows) -> None:
    program, client = shows(
        "async def made(offset, size): return b'x' * size\ntree = Dir({'made': Computed(9, made)})"
    )
    program.run(TRACED)
    assert client.value("content('made')") == b"x" * 9
    events = program.run(DRAINED.format(last="RELEASE"))
    told = {(event[0], event[1], event[3]) for event in events}
    assert {("LOOKUP", "made", "upcall"), ("OPEN", "made", "upcall")} <= told
    assert sum(event[2] for event in fields(events, "READ")) == 9


def test_events_beyond_the_ring_are_counted_as_lost(source: str, shows: Shows) -> None:
    for number in range(100):
        write(source, str(number))
    program, client = shows(
        "tree = Mirror(where)\noptions = MountOptions(cache_timeout=0, threads=1, transport='dev')",
        where=source,
    )
    before = program.statistics()["datapath"]["requests"]
    program.run(
        "from zcfuse.admin.trace import Tracer, _tracer, events_of\n"
        "_tracer._IDLE_S, _tracer._ROOM = 1000, 100_000\n"
        "globals().update(tracer=Tracer(served._datapath, lambda nodeid: b''), of=events_of)\n"
        "tracer.drain('test')"
    )
    client.value("[attributes(str(number)) for _ in range(120) for number in range(100)]")
    events, lost = program.run("r = tracer.drain('test'); return len(list(of(r))), r.lost")
    after = program.statistics()["datapath"]["requests"]
    assert 100_000 // 52 <= events <= 100_000 // 48
    answered = sum(after.values()) - sum(before.values())
    assert 0 < lost <= answered - events


def test_a_trace_costs_nothing_once_it_has_ended(source: str, shows: Shows) -> None:
    write(source, "file")
    program, client = shows("tree = Mirror(where)", where=source)
    program.run(
        "from zcfuse.admin.trace import Tracer, _tracer, events_of\n"
        "_tracer._IDLE_S = 1000\n"
        "globals().update(tracer=Tracer(served._datapath, lambda nodeid: b''), of=events_of)\n"
        "tracer.drain('one'); tracer.end('other')"
    )
    client.value("attributes('file')")
    assert program.run("return len(list(of(tracer.drain('one'))))") > 0
    assert "already" in program.run(
        "try:\n    tracer.drain('two')\nexcept PermissionError as error:\n    return str(error)"
    )
    program.run("tracer.end('one')")
    client.value("attributes('file')")
    assert program.run("return served._datapath.drain_trace()[:2]") == (b"", 0)


def zcfuse(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "zcfuse", *arguments],
        capture_output=True,
        timeout=40,
        cwd=CHECKOUT,
        check=False,
    )


@pytest.mark.parametrize("shape", ["text", "json", "files"])
def test_the_command_writes_each_shape(
    source: str, mounted: Mounter, tmp_path: Any, shape: str
) -> None:
    write(source, "file", b"hello")
    write(source, "unused", b"hello")
    daemon = mounted("--path", "pool")
    out = str(tmp_path / "trace")
    argv = ["trace", "--for", "3", "--format", shape, "-o", out, daemon.mountpoint]
    process = subprocess.Popen(
        [sys.executable, "-m", "zcfuse", *argv], stderr=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    while process.poll() is None:  # the trace begins in between
        command("cat", f"{daemon.mountpoint}/file")
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 0
    assert said.startswith("zcfuse trace: ")
    assert said.endswith(" events, 0 lost\n")
    with open(out) as file:
        lines = file.read().splitlines()
    if shape == "files":
        assert lines == [f"{daemon.mountpoint}/file"]
        assert b"1 file" in zcfuse("warm", "--from", out).stderr
    elif shape == "json":
        opened = next(e for e in map(json.loads, lines) if e["operation"] == "OPEN")
        assert (opened["path"], opened["bytes"]) == ("file", 5)
    else:
        opens = [line.split() for line in lines if " OPEN " in line]
        assert {(words[-1], words[4]) for words in opens} == {("file", "cached")}


def test_a_mount_without_a_data_path_cannot_be_traced(source: str, mounted: Mounter) -> None:
    daemon = mounted("--path", "naive")
    told = zcfuse("trace", "--for", "1", daemon.mountpoint)
    assert told.returncode == 1
    assert b"no data path to trace" in told.stderr
    assert told.stdout == b""
