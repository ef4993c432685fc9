"""An immutable mount over a socket pair: no opens, and each question only once."""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.datapath.kernel import (
    CACHE_DIR,
    FLUSH,
    GETATTR,
    IOCTL,
    KEEP_CACHE,
    LOOKUP,
    LSEEK,
    OPEN,
    OPENDIR,
    READ,
    READDIR,
    READDIRPLUS,
    ROOT,
    FakeKernel,
)
from tests.datapath.test_upcalls import negotiate
from zcfuse.datapath import arm_faults

EVERYTHING = (1 << 45) - 1
NO_OPEN, NO_OPENDIR, AUTO_INVAL_DATA, PASSTHROUGH = 1 << 17, 1 << 24, 1 << 12, 1 << 37
IMPLICIT = 1 << 63
UNLIMITED_MS = (2**32 - 1) * 1000
BIG = os.urandom(1 << 20)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "file").write_bytes(b"some bytes")
    (source / "big").write_bytes(BIG)
    for n in range(300):
        (source / "dir" / f"name-{n:03}").touch()
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"x" * 4096)
    return source


@pytest.fixture
def immutable(kernel, tree):
    """Make an immutable data path that mirrors `tree`, except for `kept`."""

    def make(
        *, offered: int = EVERYTHING, lease: bool = True, kept: Sequence[bytes] = (), **settings
    ) -> FakeKernel:
        fake = kernel(**{"path": "auto", "immutable": True, **settings})
        if lease:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
            fake.path.lease_directory(ROOT, fd, kept)
            os.close(fd)
        negotiate(fake, offered)
        return fake

    return make


def read_body(offset: int, size: int, handle: int = 0) -> bytes:
    return struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0)


def listed(fake: FakeKernel, nodeid: int, opcode: int = READDIRPLUS) -> list[bytes]:
    names, offset = [], 0
    while found := fake.some(nodeid, 0, offset, 2048, opcode):
        names += [name for name, _, _ in found]
        offset = found[-1][1]
    return names


def kept(fake: FakeKernel) -> int:
    return fake.statistics().directories.kept_files


@pytest.mark.parametrize("opcode", [OPEN, OPENDIR, FLUSH])
@pytest.mark.parametrize("nodeid", ["own", "control's"])
def test_what_need_not_be_asked_is_enosys(immutable, opcode, nodeid):
    fake = immutable()
    node = fake.look(ROOT, b"file").nodeid if nodeid == "own" else 77
    assert fake.request(opcode, node, bytes(24)).errorname == "ENOSYS"
    found = fake.statistics()
    assert (found.upcalls, found.init.zero_message_opens) == ({"INIT": 1}, True)
    assert not any(code.startswith("opens_") for code in found.fallbacks)


def test_the_negotiation_leaves_out_what_looks_for_changes(kernel, immutable):
    flags = immutable().statistics().init.flags
    assert {"NO_OPEN_SUPPORT", "NO_OPENDIR_SUPPORT", "CACHE_SYMLINKS"} <= set(flags)
    assert not {"AUTO_INVAL_DATA", "PASSTHROUGH"} & set(flags)
    other = kernel(path="auto")
    negotiate(other)
    flags = other.statistics().init.flags
    assert {"AUTO_INVAL_DATA", "PASSTHROUGH"} <= set(flags)
    assert "NO_OPEN_SUPPORT" not in flags


@pytest.mark.parametrize("left_out", [NO_OPEN, NO_OPENDIR, NO_OPEN | NO_OPENDIR])
def test_a_kernel_that_does_not_offer_it_opens_by_messages(immutable, tree, left_out):
    fake = immutable(offered=EVERYTHING & ~left_out)
    node = fake.look(ROOT, b"file").nodeid
    handle, flags = fake.open(node)
    assert flags & KEEP_CACHE
    assert fake.request(READ, node, read_body(0, 100, handle)).body == b"some bytes"
    directory, flags = fake.open(ROOT, opcode=OPENDIR)
    assert flags == KEEP_CACHE | CACHE_DIR
    names = [name for name, _, _ in fake.some(ROOT, directory, 0)]
    assert sorted(names) == sorted([b".", b"..", *map(os.fsencode, os.listdir(tree))])
    found = fake.statistics()
    assert found.fallbacks["opens_not_offered"] == 2
    assert not found.init.zero_message_opens


def test_a_tree_that_leases_nothing_is_asked_for_every_open(immutable):
    fake = immutable(lease=False)
    for opcode in (OPEN, OPENDIR):
        fake.answer(fake.ask(opcode, 5, bytes(8)), struct.pack("=QIi", 3, 0, 0))
        assert fake.reply().error == 0
    count = fake.statistics().fallbacks["opens_not_leased"]
    assert count == 2


def test_a_tree_that_keeps_a_name_is_opened_by_messages(immutable):
    fake = immutable(kept=[b"dir"])
    node = fake.look(ROOT, b"file").nodeid
    handle, _ = fake.open(node)
    assert fake.request(READ, node, read_body(0, 100, handle)).body == b"some bytes"
    count = fake.statistics().fallbacks["opens_not_leased"]
    assert count == 1


def test_a_mount_that_promises_nothing_opens_by_messages(kernel, tree):
    fake = kernel(path="pool")
    fd = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    fake.path.lease_directory(ROOT, fd)
    os.close(fd)
    negotiate(fake)
    node = fake.look(ROOT, b"file").nodeid
    fake.open(node)
    fake.ask(READ, fake.look(ROOT, b"big").nodeid, read_body(0, 10))  # as it is, unmarked


@pytest.mark.parametrize("name", [b"file", b"missing"])
def test_names_and_attributes_hold_without_limit(immutable, name):
    entry = immutable(cache_timeout=0).look(ROOT, name)
    assert entry.valid_ms == UNLIMITED_MS


def test_attributes_asked_for_hold_without_limit(immutable):
    fake = immutable(cache_timeout=0)
    node = fake.look(ROOT, b"file").nodeid
    reply = fake.request(GETATTR, node, struct.pack("=IIQ", 1, 0, 0))
    assert struct.unpack_from("=QI", reply.body) == (2**32 - 1, 0)


def test_entries_of_a_listing_hold_without_limit(immutable):
    fake = immutable(cache_timeout=0)
    entries = {name: entry for name, _, entry in fake.some(ROOT, 0, 0)}
    assert entries[b"file"].valid_ms == UNLIMITED_MS


@pytest.mark.parametrize("path", ["auto", "pool", "mmap", "splice"])
@pytest.mark.parametrize(("name", "whole"), [(b"file", b"some bytes"), (b"big", BIG)])
def test_a_file_is_read_that_nobody_opened(immutable, path, name, whole):
    fake = immutable(path=path)
    node = fake.look(ROOT, name).nodeid
    step = 128 << 10
    found = [fake.request(READ, node, read_body(at, step)).body for at in range(0, 1 << 20, step)]
    assert b"".join(found) == whole
    assert fake.statistics().upcalls == {"INIT": 1}


def test_a_file_that_one_read_has_whole_is_not_kept_open(immutable):
    fake = immutable()
    assert fake.request(READ, fake.look(ROOT, b"file").nodeid, read_body(0, 4096)).error == 0
    assert (kept(fake), fake.statistics().opens) == (0, {"implicit": 1})
    big = fake.look(ROOT, b"big").nodeid
    for at in range(0, 1 << 20, 128 << 10):
        assert len(fake.request(READ, big, read_body(at, 128 << 10)).body) == 128 << 10
    assert (kept(fake), fake.statistics().opens) == (1, {"implicit": 2})


def test_what_is_kept_open_goes_with_the_node_and_after_a_while(immutable):
    fake = immutable()
    big, sparse = (fake.look(ROOT, name).nodeid for name in (b"big", b"sparse"))
    for node in (big, sparse):
        assert fake.request(READ, node, read_body(0, 4096)).error == 0
    assert kept(fake) == 2
    fake.forget(big)
    assert fake.look(ROOT, b"file").nodeid  # after the FORGET or beside it
    assert _within(10, lambda: kept(fake) == 1)
    assert _within(10, lambda: kept(fake) == 0)


def _within(seconds, happened) -> bool:
    waiting = threading.Event()
    return any(happened() or waiting.wait(0.1) for _ in range(seconds * 10))


@pytest.mark.parametrize("size", [1, 4096])
def test_what_took_the_name_of_a_file_is_never_read_for_it(immutable, tree, size):
    fake = immutable()
    node = fake.look(ROOT, b"file").nodeid
    (tree / "other").write_bytes(b"WRONG" * 1000)
    os.rename(tree / "other", tree / "file")
    assert fake.request(READ, node, read_body(0, size)).errorname == "ESTALE"


@pytest.mark.parametrize("by", ["unlink", "fifo", "symlink", "directory"])
def test_a_file_that_is_gone_is_estale(immutable, tree, by):
    fake = immutable()
    node = fake.look(ROOT, b"file").nodeid
    os.unlink(tree / "file")
    if by == "fifo":
        os.mkfifo(tree / "file")
    elif by == "symlink":
        os.symlink("big", tree / "file")
    elif by == "directory":
        os.mkdir(tree / "file")
    assert fake.request(READ, node, read_body(0, 10)).errorname == "ESTALE"
    assert fake.request(LSEEK, node, struct.pack("=QQII", 0, 0, 3, 0)).errorname == "ESTALE"


def test_a_file_that_shrank_or_grew_gives_what_is_there(immutable, tree):
    fake = immutable()
    file, big = (fake.look(ROOT, name).nodeid for name in (b"file", b"big"))
    os.truncate(tree / "big", 5000)
    (tree / "file").write_bytes(b"longer than before")
    assert fake.request(READ, big, read_body(4096, 65536)).body == BIG[4096:5000]
    assert fake.request(READ, file, read_body(0, 10)).body == b"longer tha"


def test_a_directory_cannot_be_read_nor_a_file_listed(immutable):
    fake = immutable()
    directory, file = fake.look(ROOT, b"dir").nodeid, fake.look(ROOT, b"file").nodeid
    assert fake.request(READ, directory, read_body(0, 10)).errorname == "EISDIR"
    assert fake.request(READDIRPLUS, file, read_body(0, 4096)).error != 0


@pytest.mark.parametrize(("whence", "at"), [(os.SEEK_DATA, 1 << 20), (os.SEEK_HOLE, 0)])
def test_holes_are_found_in_a_file_that_nobody_opened(immutable, tree, whence, at):
    with (tree / "sparse").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"data")
    fake = immutable()
    node = fake.look(ROOT, b"sparse").nodeid
    with (tree / "sparse").open("rb") as native:
        expected = os.lseek(native.fileno(), 4096, whence)
    reply = fake.request(LSEEK, node, struct.pack("=QQII", 0, 4096, whence, 0))
    assert struct.unpack("=Q", reply.body) == (expected,)


def test_an_ioctl_is_enotty(immutable):
    fake = immutable()
    node = fake.look(ROOT, b"file").nodeid
    assert fake.request(IOCTL, node, bytes(32)).errorname == "ENOTTY"


@pytest.mark.parametrize("opcode", [READDIR, READDIRPLUS])
def test_a_directory_is_listed_that_nobody_opened(immutable, tree, opcode):
    fake = immutable()
    names = listed(fake, fake.look(ROOT, b"dir").nodeid, opcode)
    assert len(names) == len(set(names))
    assert sorted(names) == sorted([b".", b"..", *map(os.fsencode, os.listdir(tree / "dir"))])
    assert fake.statistics().directories.listings == 0


def test_two_clients_may_list_one_directory_at_different_places(immutable, tree):
    fake = immutable()
    node = fake.look(ROOT, b"dir").nodeid
    places, names = [0, 0, 0], [[], [], []]
    turn = 0
    while any(place is not None for place in places):
        which = (turn * turn) % 3 if turn % 5 else turn % 3
        turn += 1
        if places[which] is None:
            continue
        found = fake.some(node, 0, places[which], 1024)
        names[which] += [name for name, _, _ in found]
        places[which] = found[-1][1] if found else None
    expected = sorted([b".", b"..", *map(os.fsencode, os.listdir(tree / "dir"))])
    assert [sorted(one) for one in names] == [expected] * 3
    assert fake.statistics().directories.listings == 0


def test_listings_left_in_the_middle_are_few(immutable):
    fake = immutable()
    node = fake.look(ROOT, b"dir").nodeid
    for size in range(1024, 1024 + 200 * 8, 8):
        assert fake.some(node, 0, 0, size)
    assert 0 < fake.statistics().directories.listings <= 64
    fake.forget(node)
    assert fake.look(ROOT, b"file").nodeid  # after the FORGET or beside it
    assert _within(10, lambda: fake.statistics().directories.listings == 0)


@pytest.mark.parametrize("opcode", [READ, READDIR, READDIRPLUS])
def test_what_control_answers_goes_up_with_a_handle_for_the_node(immutable, opcode):
    fake = immutable()
    body = read_body(4096, 512)
    unique = fake.send(opcode, 77, body)
    assert fake.upcall() == (opcode, unique, 77, read_body(4096, 512, IMPLICIT | 77))
    fake.answer(unique, b"")
    assert fake.reply().error == 0


def test_holes_of_what_control_answers_are_found_once_it_has_opened_the_file(immutable, tree):
    fake = immutable()
    unique = fake.send(LSEEK, 77, struct.pack("=QQII", 0, 100, os.SEEK_HOLE, 0))
    assert fake.upcall() == (READ, unique, 77, read_body(0, 1, IMPLICIT | 77))
    with (tree / "file").open("rb") as file:
        fake.path.install(77, [(file.fileno(), 0, 2**64 - 1)])
    fake.answer(unique, b"s")
    assert fake.reply().errorname == "ENXIO"  # beyond the end
    reply = fake.request(LSEEK, 77, struct.pack("=QQII", 0, 0, os.SEEK_HOLE, 0))
    assert struct.unpack("=Q", reply.body) == (10,)


def test_a_seek_that_control_cannot_help_with_fails(immutable):
    fake = immutable()
    for error, found in ((errno.EACCES, "EACCES"), (0, "EINVAL")):
        unique = fake.send(LSEEK, 77, struct.pack("=QQII", 0, 0, os.SEEK_DATA, 0))
        fake.upcall()
        fake.answer(unique, error=error)
        assert fake.reply().errorname == found


def test_a_handle_that_control_gave_out_goes_up_as_it_is(immutable):
    fake = immutable()
    fake.ask(READ, 77, read_body(0, 512, 3))


def test_after_a_revoke_control_is_asked_for_what_is_not_open(immutable):
    fake = immutable()
    node, directory = fake.look(ROOT, b"big").nodeid, fake.look(ROOT, b"dir").nodeid
    assert fake.request(READ, node, read_body(0, 4096)).body == BIG[:4096]
    (*_, (_, place, _)) = fake.some(directory, 0, 0, 1024)
    assert fake.path.revoke_directory(ROOT)
    assert fake.notices() > 0
    assert kept(fake) == 0
    assert all(entry.nodeid == 0 for _, _, entry in fake.some(directory, 0, place, 1024))
    for opcode, nodeid in ((READ, node), (READDIRPLUS, directory)):
        fake.send(opcode, nodeid, read_body(0, 4096))
        assert fake.upcall()[3] == read_body(0, 4096, IMPLICIT | nodeid)
    fake.ask(OPEN, node, bytes(8))
    fake.ask(LOOKUP, ROOT, b"file\0")


def test_what_control_opened_for_a_revoked_node_is_served_here(immutable, tree):
    fake = immutable()
    node = fake.look(ROOT, b"big").nodeid
    assert fake.path.revoke_directory(ROOT)
    fake.notices()
    with (tree / "file").open("rb") as other:
        fake.path.install(node, [(other.fileno(), 0, 2**64 - 1)])
    assert fake.request(READ, node, read_body(0, 4096)).body == b"some bytes"
    fake.path.revoke(node)
    fake.send(READ, node, read_body(0, 4096))
    assert fake.upcall()[0] == READ


def test_no_descriptors_left_are_given_back_and_the_file_is_read(immutable):
    fake = immutable()
    node = fake.look(ROOT, b"file").nodeid
    assert fake.request(READ, fake.look(ROOT, b"big").nodeid, read_body(0, 4096)).error == 0
    arm_faults("open:EMFILE:count=1")
    assert fake.request(READ, node, read_body(0, 4096)).body == b"some bytes"


def test_many_readers_of_many_files_get_each_their_own(immutable, tree):
    for n in range(200):
        (tree / "dir" / f"name-{n:03}").write_bytes(f"{n}".encode() * 3000)
    fake = immutable(threads=4)
    directory = fake.look(ROOT, b"dir").nodeid
    nodes = {n: fake.look(directory, f"name-{n:03}".encode()).nodeid for n in range(200)}
    sent = {}
    for turn in range(3):
        for n, node in nodes.items():
            sent[fake.send(READ, node, read_body(turn * 100, 2000))] = (n, turn * 100)
        for _ in nodes:
            reply = fake.reply()
            n, offset = sent.pop(reply.unique)
            data = f"{n}".encode() * 3000
            assert reply.body == data[offset : offset + 2000]
