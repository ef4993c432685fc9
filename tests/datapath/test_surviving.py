"""A successor goes on where a killed data path stopped, over a socket pair."""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.datapath.kernel import (
    GETATTR,
    INIT,
    LOOKUP,
    OPEN,
    OPEN_OUT,
    OPENDIR,
    READ,
    READDIR,
    READDIRPLUS,
    RELEASEDIR,
    ROOT,
    Entry,
    Reply,
)
from tests.datapath.survivor import INIT_IN, Survivor
from zcfuse.datapath import Config, DataPath, SurvivingState

WRITE = 16


@pytest.fixture
def survivor(tree: Path) -> Iterator[Callable[..., Survivor]]:
    """Make data paths in processes of their own."""
    made: list[Survivor] = []

    def make(**settings: object) -> Survivor:
        made.append(Survivor(tree, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def attributes(fake: Survivor, nodeid: int) -> bytes:
    reply = fake.request(GETATTR, nodeid, struct.pack("=IIQ", 0, 0, 0))
    assert reply.errorname == "OK"
    return reply.body


def test_nodes_keep_their_numbers_names_and_lookups(survivor, tree) -> None:
    fake = survivor()
    before = {path: fake.walk(path).nodeid for path in (b"file", b"dir/inner", b"dir/deep")}
    held = {path: attributes(fake, nodeid) for path, nodeid in before.items()}
    fake.succeed()
    assert {path: attributes(fake, nodeid) for path, nodeid in before.items()} == held
    assert {path: fake.walk(path).nodeid for path in before} == before
    fake.forget(before[b"file"])
    assert fake.look(ROOT, b"file").nodeid == before[b"file"]
    fake.forget(before[b"file"], lookups=2)
    assert fake.look(ROOT, b"file").nodeid != before[b"file"]


def test_a_successor_of_a_successor_goes_on(survivor) -> None:
    fake = survivor()
    nodeid = fake.walk(b"dir/inner").nodeid
    fake.succeed().stop()
    fake.take_over()
    assert fake.walk(b"dir/inner").nodeid == nodeid
    assert fake.state.generation == 3
    assert fake.state.roots() == [(ROOT, "directory")]


def test_control_is_shown_init_again_and_the_kernel_hears_no_second_reply(survivor) -> None:
    fake = survivor(path="auto")
    reply = fake.negotiate()
    fake.kill()
    path = fake.take_over()
    assert fake.state.negotiated
    opcode, unique, _, body = fake.upcall()
    assert (opcode, body) == (INIT, INIT_IN)
    assert fake.state.init_request.endswith(INIT_IN)
    fake.answer(unique, bytes(64))
    assert fake.look(ROOT, b"file").size == len(b"some bytes")
    agreed = fake.statistics().init
    assert agreed.passthrough
    assert fake.again(INIT, 0, INIT_IN, unique).body == reply.body
    assert path.end_reason() == ""


def test_a_request_that_comes_again_is_answered_and_counted(survivor) -> None:
    fake = survivor()
    fake.succeed()
    reply = fake.again(LOOKUP, ROOT, b"file\0", 40)
    assert Entry.of(reply.body).size == len(b"some bytes")
    assert fake.state.resent == 1
    assert fake.state.resent_by_operation() == {"LOOKUP": 1}


def test_another_directory_at_the_root_makes_nodes_below_stale(survivor, tree, tmp_path) -> None:
    fake = survivor()
    nodeid = fake.look(ROOT, b"file").nodeid
    fake.kill()
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"not the same")
    fake.lease(other)
    fake.take_over()
    reply = fake.request(GETATTR, nodeid, struct.pack("=IIQ", 0, 0, 0))
    assert reply.errorname == "ESTALE"
    assert fake.look(ROOT, b"file").size == len(b"not the same")


def test_records_of_control_survive_and_can_be_replaced() -> None:
    first = SurvivingState.create()
    first.append(b"")
    first.append(b"\0two\xff" * 1000)
    fds = [os.dup(fd) for fd in first.fds()]
    del first
    second = SurvivingState.attach(fds)
    assert second.records() == [b"", b"\0two\xff" * 1000]
    second.replace_records([b"three"])
    second.append(b"four")
    del second
    assert SurvivingState.attach(fds).records() == [b"three", b"four"]
    for fd in fds:
        os.close(fd)


def test_a_record_that_is_too_large_is_refused() -> None:
    with pytest.raises(OSError, match="record"):
        SurvivingState.create().append(bytes((1 << 20) + 1))


@pytest.mark.parametrize(
    ("part", "at", "says"),
    [
        (0, 0, "no state of a zcfuse mount"),
        (0, 8, "layout"),
        (1, 0, "no table of nodes"),
        (1, 16, "damaged"),
        (2, 0, "damaged"),
        (2, 4100, "damaged at byte"),
    ],
)
def test_a_damaged_state_is_refused_with_what_is_wrong(part: int, at: int, says: str) -> None:
    state = SurvivingState.create()
    state.append(b"a record")
    os.pwrite(state.fds()[part], b"\xff\xff", at)
    with pytest.raises(ValueError, match=says):
        SurvivingState.attach(state.fds())


def test_the_layout_is_known_without_taking_a_state() -> None:
    state = SurvivingState.create()
    assert SurvivingState.layout_of(state.fds()[0]) == SurvivingState.LAYOUT
    with open("/dev/null") as other, pytest.raises(ValueError, match="no state"):
        SurvivingState.layout_of(other.fileno())


def test_a_successor_does_not_serve_a_ring() -> None:
    config = Config()
    config.transport = "uring"
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises((ValueError, RuntimeError), match="ring"):
        DataPath(null, os.dup(null), config, device=False, state=SurvivingState.create(), clones=())


def read(fake: Survivor, nodeid: int, handle: int, size: int = 4096) -> Reply:
    fake.send(READ, nodeid, struct.pack("=QQIIQII", handle, 0, size, 0, 0, 0, 0))
    return fake.reply()


def read_goes_up(fake: Survivor, nodeid: int, handle: int) -> bool:
    fake.ask(READ, nodeid, struct.pack("=QQIIQII", handle, 0, 10, 0, 0, 0, 0))
    return True


def test_an_open_file_is_read_by_its_handle(survivor, tree) -> None:
    fake = survivor()
    entry = fake.look(ROOT, b"file")
    handle, _ = fake.open(entry.nodeid)
    fake.succeed()
    assert fake.path.serves(entry.nodeid) == ""
    assert read(fake, entry.nodeid, handle).body == b"some bytes"
    assert fake.path.serves(entry.nodeid) == "cached"
    assert fake.statistics().upcalls == {}


def test_a_file_that_was_replaced_while_it_was_open_is_stale(survivor, tree) -> None:
    fake = survivor()
    entry = fake.look(ROOT, b"file")
    handle, _ = fake.open(entry.nodeid)
    fake.kill()
    (tree / "file").unlink()
    (tree / "file").write_bytes(b"another")
    fake.take_over()
    assert read(fake, entry.nodeid, handle).errorname == "ESTALE"


def test_opens_are_counted_until_the_last_release_and_a_second_release_changes_nothing(
    survivor,
) -> None:
    fake = survivor()
    entry = fake.look(ROOT, b"file")
    first, _ = fake.open(entry.nodeid)
    second, _ = fake.open(entry.nodeid)
    assert first != second
    fake.succeed()
    fake.release(entry.nodeid, first)
    fake.release(entry.nodeid, first)
    assert read(fake, entry.nodeid, second).body == b"some bytes"
    assert fake.path.serves(entry.nodeid) == "cached"
    fake.release(entry.nodeid, second)
    fake.kill_successor()
    fake.take_over()
    assert read_goes_up(fake, entry.nodeid, second)


def test_an_open_that_comes_again_is_counted_once(survivor) -> None:
    fake = survivor()
    entry = fake.look(ROOT, b"file")
    unique = fake.send(OPEN, entry.nodeid, struct.pack("=II", os.O_RDONLY, 0))
    fake.reply()
    fake.succeed()
    reply = fake.again(OPEN, entry.nodeid, struct.pack("=II", os.O_RDONLY, 0), unique)
    handle = OPEN_OUT.unpack(reply.body)[0]
    fake.release(entry.nodeid, handle)
    fake.kill_successor()
    fake.take_over()
    assert read_goes_up(fake, entry.nodeid, handle)


@pytest.mark.parametrize("opcode", [READDIR, READDIRPLUS])
def test_a_listing_goes_on_where_it_stood_and_begins_again_at_0(survivor, tree, opcode) -> None:
    for n in range(300):
        (tree / f"name-{n:03}").touch()
    fake = survivor()
    handle, _ = fake.open(ROOT, opcode=OPENDIR)
    names = []
    offset = 0
    for turn in range(1000):
        found = fake.some(ROOT, handle, offset, opcode=opcode)
        if not found:
            break
        names += [name for name, _, _ in found]
        offset = found[-1][1]
        if turn == 2:
            fake.succeed()
    wanted = sorted([b".", b"..", *os.listdir(os.fsencode(tree))])
    assert sorted(names) == wanted
    fake.kill_successor()
    fake.take_over()
    assert fake.some(ROOT, handle, offset, opcode=opcode) == []
    assert [name for name, _, _ in fake.some(ROOT, handle, 0, 1 << 16, READDIR)] == names
    fake.release(ROOT, handle, RELEASEDIR)


def test_a_write_goes_on_by_its_handle(survivor, tree) -> None:
    fake = survivor(read_only=False)
    entry = fake.look(ROOT, b"file")
    handle, _ = fake.open(entry.nodeid, os.O_RDWR)
    fake.succeed()
    body = struct.pack("=QQIIQII", handle, 0, 5, 0, 0, os.O_RDWR, 0) + b"other"
    assert fake.request(WRITE, entry.nodeid, body).errorname == "OK"
    assert (tree / "file").read_bytes() == b"otherbytes"
    assert read(fake, entry.nodeid, handle).body == b"otherbytes"
