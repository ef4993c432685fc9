"""Names outside a lease: those that the tree keeps, and those that were revoked."""

import errno
import os
import stat
import struct

import pytest

from tests.datapath.kernel import (
    ACCESS,
    FLUSH,
    FORGET,
    GETATTR,
    GETXATTR,
    INIT,
    LISTXATTR,
    LOOKUP,
    LSEEK,
    OPEN,
    OPENDIR,
    OUT_HEADER,
    READ,
    READDIRPLUS,
    READLINK,
    RELEASEDIR,
    ROOT,
    STATFS,
    STATX,
    WAIT_S,
    FakeKernel,
)
from tests.support import eventually
from zcfuse.datapath import arm_faults

INVAL_INODE, INVAL_ENTRY, INC_EPOCH = 2, 3, 8
INIT_IN = struct.Struct("=IIIII44x")
INIT_OUT = struct.Struct("=IIIIHHIIHHIIH22x")


def test_who_a_node_is_can_be_asked_and_its_end_is_told_then(leased, tree):
    fake = leased()
    node = fake.walk(b"dir/inner").nodeid
    chain = fake.path.describe(node)
    assert [one[1] for one in chain] == [b"", b"dir", b"inner"]
    assert chain[0][0] == ROOT
    assert chain[-1][0] == node
    found = os.lstat(tree / "dir/inner")
    device = os.major(found.st_dev) << 32 | os.minor(found.st_dev)
    assert (chain[-1][2], chain[-1][3]) == (device, found.st_ino)
    assert chain[-1][5] == stat.S_IFREG
    fake.forget(node)
    assert fake.upcall()[0::2][:2] == (FORGET, node)
    assert fake.path.describe(node) == []


def test_after_a_revoke_all_below_goes_up_and_the_rest_does_not(leased):
    fake = leased()
    directory = fake.look(ROOT, b"dir").nodeid
    inner = fake.look(directory, b"inner").nodeid
    assert fake.path.revoke_directory(directory)
    for opcode, node in (
        (LOOKUP, directory),
        (OPENDIR, directory),
        (GETATTR, inner),
        (OPEN, inner),
    ):
        fake.ask(opcode, node, bytes(16) + b"name\0")
    fake.ask(LOOKUP, ROOT, b"dir\0")
    assert fake.notices() >= 1
    assert fake.look(ROOT, b"file").nodeid
    assert fake.list(ROOT)[b"dir"].nodeid == 0


def test_a_file_open_at_a_revoke_is_served_until_it_is_released(leased):
    fake = leased()
    directory = fake.look(ROOT, b"dir").nodeid
    inner = fake.look(directory, b"inner").nodeid
    handle, _ = fake.open(inner)
    fake.path.revoke_directory(ROOT)
    fake.notices()
    assert fake.read(inner, 0, 5).body == b"inner"
    fake.ask(OPEN, inner, bytes(8))
    fake.release(inner, handle)
    assert fake.statistics().leases == 0


def test_a_listing_open_at_a_revoke_goes_on_with_bare_names(leased, tree):
    for n in range(300):
        (tree / "dir" / f"n{n}").touch()
    fake = leased()
    node = fake.look(ROOT, b"dir").nodeid
    handle, _ = fake.open(node, opcode=OPENDIR)
    found = fake.some(node, handle, 0)
    fake.path.revoke_directory(node)
    fake.notices()
    while more := fake.some(node, handle, found[-1][1]):
        assert {entry.nodeid for _, _, entry in more} == {0}
        found += more
    assert len({name for name, _, _ in found}) == 305
    fake.release(node, handle, RELEASEDIR)


def test_a_revoke_holds_for_a_directory_that_was_forgotten_meanwhile(leased):
    fake = leased()
    directory = fake.look(ROOT, b"dir").nodeid
    fake.path.revoke_directory(directory)
    fake.notices()
    fake.forget(directory)
    fake.ask(LOOKUP, ROOT, b"dir\0")


def test_a_directory_may_be_leased_again(leased, tree):
    fake = leased()
    fake.path.revoke_directory(ROOT)
    fake.notices()
    fake.ask(LOOKUP, ROOT, b"file\0")
    fd = os.open(tree, os.O_PATH)
    fake.path.lease_directory(ROOT, fd)
    os.close(fd)
    assert fake.look(ROOT, b"file").nodeid


# Names that the tree keeps


def test_what_the_tree_keeps_goes_up_with_its_name_and_the_rest_does_not(leased, tree):
    fake = leased(kept=[b"dir/deep", b"fifo"])
    directory = fake.look(ROOT, b"dir").nodeid
    fake.ask(LOOKUP, ROOT, b"fifo\0")
    fake.ask(LOOKUP, directory, b"deep\0")
    assert fake.look(directory, b"inner").nodeid
    assert fake.look(ROOT, b"deep").nodeid == 0  # the tree keeps the path, not the name


def test_what_the_tree_keeps_is_listed_as_a_bare_name(leased, tree):
    fake = leased(kept=[b"dir/deep"])
    found = fake.list(fake.look(ROOT, b"dir").nodeid)
    assert found[b"deep"].nodeid == 0
    assert found[b"inner"].nodeid != 0


def test_what_is_made_anew_under_a_kept_name_is_kept(leased, tree):
    fake = leased(kept=[b"dir/deep", b"later"], cache_timeout=0)
    directory = fake.look(ROOT, b"dir").nodeid
    (tree / "dir" / "deep").rmdir()
    (tree / "dir" / "deep").write_bytes(b"other")
    (tree / "later").mkdir()
    fake.ask(LOOKUP, directory, b"deep\0")
    fake.ask(LOOKUP, ROOT, b"later\0")


# A revoke during a request

SLOW = {
    "open": ("open", OPEN, b"file", struct.pack("=II", 0, 0)),
    "getattr": ("statx", GETATTR, b"file", bytes(16)),
    "lookup": ("statx", LOOKUP, b"dir", b"inner\0"),
}


@pytest.mark.parametrize("operation", SLOW)
def test_what_is_being_answered_at_a_revoke_is_answered_by_the_lease(leased, operation):
    call, opcode, name, body = SLOW[operation]
    fake = leased(cache_timeout=0)
    node = fake.look(ROOT, name).nodeid
    unique = slowly(fake, call, opcode, node, body)
    assert fake.path.revoke_directory(ROOT)
    heard = messages(fake)
    # The kernel must not cache it: a notification follows, however late.
    numbers = [number for _, number, _ in heard]
    assert unique in numbers[:-1]
    assert heard[numbers.index(unique)][0] == 0
    fake.ask(opcode, node, body)


def test_a_read_in_progress_at_a_revoke_is_answered_from_the_file(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    fake.open(node)
    body = struct.pack("=QQIIQII", 0, 0, 4, 0, 0, 0, 0)
    unique = slowly(fake, "preadv", READ, node, body)
    assert fake.path.revoke_directory(ROOT)
    assert (0, unique, b"some") in messages(fake)


def test_a_listing_in_progress_at_a_revoke_tells_of_no_leased_node_afterwards(leased):
    fake = leased()
    handle, _ = fake.open(ROOT, opcode=OPENDIR)
    body = struct.pack("=QQIIQII", handle, 0, 4096, 0, 0, 0, 0)
    unique = slowly(fake, "getdents", READDIRPLUS, ROOT, body)
    assert fake.path.revoke_directory(ROOT)
    numbers = [number for _, number, _ in messages(fake)]
    assert unique in numbers[:-1]
    assert {entry.nodeid for _, _, entry in fake.some(ROOT, handle, 0)} == {0}


def slowly(fake: FakeKernel, call: str, opcode: int, node: int, body: bytes) -> int:
    """A request whose answer takes half a second; returns its number."""
    before = sum(fake.statistics().requests.values())
    assert arm_faults(f"{call}:slow:count=1")
    unique = fake.send(opcode, node, body)
    assert eventually(lambda: sum(fake.statistics().requests.values()) > before)
    return unique


def test_a_revoke_lets_go_of_what_was_kept_open(leased):
    fake = leased()
    node = fake.look(ROOT, b"file").nodeid
    handle, _ = fake.open(node)
    fake.release(node, handle)
    assert fake.statistics().directories.kept_files == 1
    fake.path.revoke_directory(ROOT)
    assert fake.statistics().directories.kept_files == 0
    assert fake.statistics().leases == 0


# Notifications to the kernel


def messages(fake: FakeKernel, quiet: float = 1.0) -> list[tuple[int, int, bytes]]:
    """(code or error, number or 0, body) of all messages until a pause of this length."""
    fake.channel.settimeout(quiet)
    found = []
    try:
        while True:
            message = fake.channel.recv(1 << 16)
            _, code, unique = OUT_HEADER.unpack_from(message)
            found.append((code, unique, message[OUT_HEADER.size :]))
    except TimeoutError:
        return found
    finally:
        fake.channel.settimeout(WAIT_S)


def notified(fake: FakeKernel) -> list[tuple[int, bytes]]:
    """(code, body) of the notifications that arrive within a moment."""
    return [(code, body) for code, unique, body in messages(fake, 0.3) if unique == 0]


def greet(fake: FakeKernel, minor: int) -> None:
    """INIT by a kernel with protocol 7.`minor`."""
    fake.answer(
        fake.ask(INIT, 0, INIT_IN.pack(7, minor, 131072, 0, 0)),
        INIT_OUT.pack(7, minor, 65536, 0, 0, 0, 131072, 1, 0, 0, 0, 0, 0),
    )
    fake.reply()


def test_a_kernel_without_epochs_is_told_each_name_at_a_revoke(leased):
    fake = leased()
    greet(fake, 43)
    fake.look(ROOT, b"file")
    directory = fake.look(ROOT, b"dir").nodeid
    fake.look(directory, b"inner")
    fake.look(directory, b"missing")
    fake.path.revoke_directory(directory)
    # Some perhaps repeatedly: by a request whose thread was still busy.
    told = notified(fake)
    entries = {body[16:] for code, body in told if code == INVAL_ENTRY}
    inodes = {struct.unpack_from("=Q", body)[0] for code, body in told if code == INVAL_INODE}
    assert directory in inodes
    assert {b"inner\0", b"dir\0"} <= entries <= {b"inner\0", b"dir\0", b"file\0"}
    assert {code for code, _ in told} == {INVAL_INODE, INVAL_ENTRY}


def test_a_kernel_with_epochs_is_told_of_a_new_one(leased):
    fake = leased()
    greet(fake, 44)
    fake.look(ROOT, b"file")
    fake.path.revoke_directory(ROOT)
    assert {code for code, _ in notified(fake)} == {INVAL_INODE, INC_EPOCH}


@pytest.mark.parametrize(
    "opcode",
    [
        *(LOOKUP, GETATTR, STATX, READLINK, STATFS, ACCESS, OPEN, OPENDIR, GETXATTR, LISTXATTR),
        *(READ, READDIRPLUS, RELEASEDIR, FLUSH, LSEEK),
    ],
)
def test_no_answer_of_control_switches_an_operation_off_for_leased_nodes(leased, opcode):
    fake = leased()
    unique = fake.send(opcode, 77, bytes(40) + b"name\0")
    assert fake.upcall()[1] == unique
    fake.answer(unique, error=errno.ENOSYS)
    reply = fake.reply()
    assert reply.unique == unique
    assert reply.errorname not in ("OK", "ENOSYS")
