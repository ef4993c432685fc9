"""The lines of a trace say what its events do, whatever the names are."""

from __future__ import annotations

import json
import struct
from datetime import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcfuse.admin.trace import Event, TraceReply, events_of

OPERATIONS = ["?", "LOOKUP", "OPEN", "READ"]
NAMES = st.binary(max_size=255).filter(lambda name: b"\0" not in name)
U64 = st.integers(0, 2**63)
U32 = st.integers(0, 2**32 - 1)
EVENTS = st.lists(
    st.tuples(U64, U64, st.integers(1, 4), U64, U32, U32, st.integers(0, 5), st.integers(0, 6)),
    max_size=9,
)


def reply(events: list[tuple[int, ...]], names: list[bytes], below: bytes, lost: int) -> TraceReply:
    packed = b"".join(
        struct.pack("<QQQQIIHBB4x", *event, len(name)) + name
        for event, name in zip(events, names, strict=False)
    )
    # Node 1 is the root, 2 lies below it, 3 below a directory that nobody can name, 4 is unknown.
    places = b"".join(
        struct.pack("<QQQ", node, root, len(path)) + path
        for node, root, path in [(1, 1, b""), (2, 1, below), (3, 9, b"lost")]
    )
    return TraceReply(packed, lost, places, {1: b""}, OPERATIONS)


def text(event: Event) -> str:
    when = datetime.fromtimestamp(event.time_ns // 10**9).strftime("%H:%M:%S")
    path = "?" if event.path is None else event.path or "/"
    raw = path.encode("utf-8", "surrogateescape")
    shown = raw.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    return (
        f"{when}.{event.time_ns % 10**9 // 1000:06} {event.pid:7} {event.uid:5}"
        f" {event.operation:12} {event.served or '-':11} {event.bytes:10}"
        f" {event.latency_ns // 1000:7}.{event.latency_ns % 1000 // 100} {shown}"
    )


@given(EVENTS, st.lists(NAMES, min_size=9, max_size=9), NAMES, st.integers(0, 99))
def test_a_line_of_json_or_text_is_the_event(
    events: list[tuple[int, ...]], names: list[bytes], below: bytes, lost: int
) -> None:
    events = [(event[0] % 2**34 * 10**9 % 2**62, *event[1:]) for event in events]
    told = reply(events, names, below, lost)
    expected = list(events_of(told))
    lines, count = told.lines(json=True)
    assert count == len(expected)
    found = [json.loads(line) for line in lines.split(b"\n")[:-1]]
    assert found == [msgspec.structs.asdict(event) for event in expected]
    lines, count = told.lines(json=False)
    assert count == len(expected)
    assert lines.decode("utf-8").split("\n")[:-1] == [text(event) for event in expected]


def test_the_files_of_a_trace_are_each_named_once_in_the_order_of_their_first_use() -> None:
    events = [(1, 1, node, 0, 1, 1, operation, 1) for node, operation in [(1, 2), (2, 3), (1, 2)]]
    events += [(1, 1, 1, 0, 1, 1, 1, 1), (1, 1, 4, 0, 1, 1, 2, 1)]
    told = reply(events, [b"a", b"", b"a", b"looked", b"gone"], b"deep/b", 0)
    assert told.files(["OPEN", "READ"]) == ([b"a", b"deep/b"], 1, 5)


@pytest.mark.parametrize("cut", [1, 47, 48, 50])
def test_a_damaged_reply_ends_early(cut: int) -> None:
    told = reply([(1, 1, 1, 0, 1, 1, 1, 1)], [b"name"], b"", 0)
    damaged = msgspec.structs.replace(told, packed=told.packed[:cut], places=told.places[:cut])
    assert damaged.lines(json=True) == (b"", 0)
