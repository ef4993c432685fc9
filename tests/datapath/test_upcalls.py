"""Upcalls reach Python unchanged; replies are amended and never lost."""

import errno
import os
import struct

import pytest

from tests.datapath import kernel as protocol
from tests.datapath.kernel import (
    ATTR,
    GETATTR,
    INIT,
    INTERRUPT,
    LOOKUP,
    OPEN,
    POLL,
    READ,
    READDIRPLUS,
    RELEASE,
)
from tests.support import eventually
from zcfuse.datapath import WHOLE_FILE, arm_faults

NODE = 5
ENTRY_HEAD = struct.Struct("=QQQQII")
OPEN_OUT = struct.Struct("=QIi")
KEEP_CACHE, NOFLUSH = 1 << 1, 1 << 5
PASSTHROUGH_BIT, ACL_BIT, MAX_PAGES_BIT, INIT_EXT_BIT = 37, 20, 22, 30
INIT_OUT = struct.Struct("=IIIIHHIIHHIIH22x")


def entry(nodeid, ino):
    return ENTRY_HEAD.pack(nodeid, 0, 1, 1, 0, 0) + ATTR.pack(ino, *range(5), *range(10))


def ino_of(entry_out):
    return ATTR.unpack_from(entry_out, ENTRY_HEAD.size)[0]


def negotiate(fake, offered=(1 << 45) - 1):
    body = struct.pack("=IIIII44x", 7, 45, 131072, offered & 0xFFFFFFFF, offered >> 32)
    fake.send(INIT, 0, body)
    _, unique, _, seen = fake.upcall()
    assert seen == body
    fake.answer(unique, INIT_OUT.pack(7, 38, 65536, 1 << ACL_BIT, 0, 0, 131072, 1, 0, 0, 0, 0, 0))
    return INIT_OUT.unpack(fake.reply().body)


def test_a_request_goes_up_unchanged_and_its_reply_comes_down(kernel):
    fake = kernel()
    unique = fake.send(LOOKUP, 1, b"name\0")
    assert fake.upcall() == (LOOKUP, unique, 1, b"name\0")
    fake.answer(unique, error=errno.ENOENT)
    assert fake.reply() == protocol.Reply(errno.ENOENT, unique, b"")


def test_a_lookup_shows_the_inode_number_of_the_backing_file(kernel):
    fake = kernel()
    fake.path.set_ino(77, 123_456_789)
    fake.answer(fake.ask(LOOKUP, 1, b"a\0"), entry(77, 77))
    assert ino_of(fake.reply().body) == 123_456_789


def test_getattr_shows_the_inode_number_of_the_backing_file(kernel):
    fake = kernel()
    fake.path.set_ino(77, 99)
    fake.answer(fake.ask(GETATTR, 77, bytes(16)), bytes(16) + ATTR.pack(77, *range(15)))
    assert ATTR.unpack_from(fake.reply().body, 16)[0] == 99


def test_each_entry_of_a_listing_shows_the_inode_number_of_its_backing_file(kernel):
    fake = kernel()
    body = b""
    for nodeid, name in ((10, b"a"), (11, b"longer-name")):
        fake.path.set_ino(nodeid, nodeid * 1000)
        dirent = struct.pack("=QQII", nodeid, 1, len(name), 8) + name
        body += entry(nodeid, nodeid) + dirent + bytes(-len(dirent) % 8)
    fake.answer(fake.ask(READDIRPLUS, 1, bytes(40)), body)
    reply = fake.reply().body
    second = 128 + 32
    assert [ino_of(reply), ino_of(reply[second:])] == [10_000, 11_000]
    assert struct.unpack_from("=Q", reply, 128)[0] == 10_000


def test_a_dropped_inode_number_falls_back_to_the_node_id(kernel):
    fake = kernel()
    fake.path.set_ino(77, 99)
    fake.path.drop_inos([77])
    fake.answer(fake.ask(LOOKUP, 1, b"a\0"), entry(77, 77))
    assert ino_of(fake.reply().body) == 77


def test_init_asks_for_what_helps_reading(kernel):
    fake = kernel(path="auto", stack_depth=2)
    reply = negotiate(fake)
    flags = reply[3] | reply[10] << 32
    wanted = (PASSTHROUGH_BIT, ACL_BIT, MAX_PAGES_BIT, INIT_EXT_BIT)
    assert all(flags >> bit & 1 for bit in wanted)
    assert reply[11] == 2
    assert fake.statistics().init.passthrough
    assert fake.statistics().init.max_pages == reply[8]


def test_init_asks_for_nothing_that_the_kernel_does_not_offer(kernel):
    fake = kernel(path="auto")
    reply = negotiate(fake, offered=(1 << 23) - 1)
    assert reply[3] | reply[10] << 32 < 1 << 23
    assert not fake.statistics().init.passthrough


@pytest.mark.parametrize("path", ["pool", "splice", "upcall"])
def test_a_path_that_is_forced_asks_for_no_passthrough(kernel, path):
    fake = kernel(path=path)
    assert not negotiate(fake)[10] >> (PASSTHROUGH_BIT - 32) & 1


def test_messages_too_large_for_the_upcall_socket_are_negotiated_away(kernel):
    fake = kernel(path="splice", message_bytes=200_000)
    assert negotiate(fake)[8] * 4096 + 16 <= 200_000


def test_open_keeps_controls_word_on_the_cache_and_saves_the_flush(kernel, backing):
    fake = kernel(path="splice")
    fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    fake.answer(fake.ask(OPEN, NODE, bytes(8)), OPEN_OUT.pack(3, KEEP_CACHE, 0))
    assert OPEN_OUT.unpack(fake.reply().body) == (3, KEEP_CACHE | NOFLUSH, 0)


def test_an_open_that_cannot_pass_through_has_its_reason_counted(kernel, backing):
    fake = kernel(path="auto")
    negotiate(fake)
    mode, reason = fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    assert mode == "cached"
    assert reason.startswith("passthrough_")
    assert fake.statistics().fallbacks[reason] == 1


def test_enosys_does_not_switch_an_operation_off_for_the_whole_connection(kernel):
    fake = kernel()
    fake.answer(fake.ask(GETATTR, 9, bytes(16)), error=errno.ENOSYS)
    assert fake.reply().error == errno.EOPNOTSUPP
    fake.answer(fake.ask(52, 9, bytes(32)), error=errno.ENOSYS)
    assert fake.reply().errorname == "ENOSYS"


def test_poll_is_left_to_the_kernel_and_never_goes_up(kernel):
    fake = kernel()
    assert fake.request(POLL, 9, bytes(24)).errorname == "ENOSYS"
    assert "POLL" not in fake.statistics().upcalls


def test_an_interrupt_goes_up_only_for_a_request_that_went_up(kernel):
    fake = kernel()
    fake.send(INTERRUPT, 0, struct.pack("=Q", 4242), unique=4243)
    unique = fake.send(LOOKUP, 1, b"slow\0")
    assert fake.upcall()[0] == LOOKUP
    fake.send(INTERRUPT, 0, struct.pack("=Q", unique), unique=unique | 1)
    assert fake.upcall() == (INTERRUPT, unique | 1, 0, struct.pack("=Q", unique))
    fake.answer(unique, error=errno.EINTR)
    assert fake.reply().error == errno.EINTR
    assert fake.statistics().interrupts == 2


def test_control_that_goes_away_ends_what_is_out_and_the_connection(kernel):
    fake = kernel()
    unique = fake.send(LOOKUP, 1, b"name\0")
    fake.upcall()
    fake.control.close()
    assert fake.reply() == protocol.Reply(errno.EIO, unique, b"")
    assert fake.channel.recv(1) == b""
    assert "control closed" in fake.path.end_reason()


def test_an_upcall_that_nobody_answers_is_answered_eio(kernel):
    fake = kernel(upcall_timeout=0)
    unique = fake.send(LOOKUP, 1, b"name\0")
    assert fake.reply() == protocol.Reply(errno.EIO, unique, b"")


def test_an_upcall_that_was_lost_is_answered_eio_while_others_are_answered(kernel):
    fake = kernel(upcall_timeout=1)
    lost = fake.ask(LOOKUP, 1, b"lost\0")
    replies = []

    def is_answered():
        fake.answer(fake.ask(GETATTR, 1, bytes(16)), error=errno.ENOENT)
        replies.append(fake.reply())
        return replies[-1].unique == lost

    assert eventually(is_answered, 20)
    assert replies[-1].error == errno.EIO


def test_what_a_late_reply_granted_is_given_back(kernel):
    fake = kernel(upcall_timeout=0)
    late_lookup, late_open = fake.send(LOOKUP, 1, b"a\0"), fake.send(OPEN, NODE, bytes(8))
    assert {fake.upcall()[1], fake.upcall()[1]} == {late_lookup, late_open}
    assert {fake.reply().error, fake.reply().error} == {errno.EIO}
    fake.answer(late_lookup, entry(77, 77))
    opcode, _, nodeid, body = fake.upcall()
    assert (opcode, nodeid, body) == (protocol.FORGET, 77, struct.pack("=Q", 1))
    fake.answer(late_open, OPEN_OUT.pack(31, 0, 0))
    opcode, _, nodeid, body = fake.upcall()
    assert (opcode, nodeid, body[:8]) == (RELEASE, NODE, struct.pack("=Q", 31))


def test_upcalls_that_control_does_not_take_wait_in_order_and_none_is_lost(kernel):
    fake = kernel()
    sent = [fake.send(LOOKUP, 1, b"n" * 4000 + b"\0") for _ in range(2000)]
    assert eventually(lambda: fake.statistics().upcalls_overflow > 0)
    assert sorted(fake.upcall()[1] for _ in sent) == sent
    for unique in sent:
        fake.answer(unique, error=errno.ENOENT)
        assert fake.reply().unique == unique


def test_a_read_without_a_lease_is_forwarded_and_counted(kernel):
    fake = kernel(path="auto")
    unique = fake.send(READ, 9, struct.pack("=QQIIQII", 0, 0, 4096, 0, 0, 0, 0))
    assert fake.upcall()[0] == READ
    fake.answer(unique, b"made by Python")
    assert fake.reply().body == b"made by Python"
    statistics = fake.statistics()
    assert statistics.fallbacks == {"no_lease": 1}
    assert statistics.paths["upcall"].copies_per_byte == 2.0


def test_a_revoked_lease_sends_reads_up_again(kernel, backing):
    fake = kernel(path="pool")
    fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    assert fake.read(NODE, 0, 10).body == backing[1][:10]
    fake.path.revoke(NODE)
    fake.send(READ, NODE, struct.pack("=QQIIQII", 0, 0, 10, 0, 0, 0, 0))
    assert fake.upcall()[0] == READ


def test_a_notification_from_control_is_passed_on(kernel):
    fake = kernel()
    fake.answer(0, struct.pack("=Qqq", 77, 0, -1), error=-2)
    message = fake.channel.recv(1 << 16)
    assert protocol.OUT_HEADER.unpack_from(message) == (40, 2, 0)


def test_a_notification_of_our_own_tells_its_outcome(kernel):
    fake = kernel()
    assert fake.path.invalidate_entry(1, b"name") == 0
    message = fake.channel.recv(1 << 16)
    assert message[16:] == struct.pack("=QII", 1, 4, 0) + b"name\0"


def test_malformed_messages_are_counted_and_harm_nobody(kernel):
    fake = kernel()
    for junk in (b"x", bytes(39), bytes(40), os.urandom(500)):
        fake.channel.sendall(junk)
    fake.control.sendall(b"short")
    fake.answer(fake.ask(LOOKUP, 1, b"a\0"), error=errno.ENOENT)
    assert fake.reply().error == errno.ENOENT
    assert fake.statistics().malformed >= 4


def test_a_serving_thread_that_dies_lets_go_of_the_connection(kernel):
    fake = kernel()
    assert arm_faults("read:EIO:count=1")
    fake.ask(LOOKUP, 1, b"the thread reads again and dies\0")
    assert fake.channel.recv(1) == b""
    assert fake.path.end_reason() == "reading a request: Input/output error"


def test_stopping_ends_every_thread_with_requests_still_out(kernel):
    fake = kernel()
    fake.send(LOOKUP, 1, b"never answered\0")
    fake.upcall()
    assert fake.path.stop()
    assert fake.path.end_reason() == "stopped"


USER, OTHER_USER, ROOT_USER = 1000, 1001, 0


@pytest.fixture
def shared(kernel):
    """Sixteen tasks of control: four for a user, fourteen for all users but root."""
    return kernel(control_tasks=16)


def taken(fake, count):
    """The numbers of the next upcalls."""
    return {fake.upcall()[1] for _ in range(count)}


def test_a_user_has_a_quarter_of_the_tasks_and_the_others_go_past(shared):
    asked = [shared.send(LOOKUP, 1, b"%d\0" % n, uid=USER) for n in range(10)]
    out = taken(shared, 4)
    assert out < set(asked)
    past = {shared.send(LOOKUP, 1, b"other\0", uid=uid) for uid in (OTHER_USER, ROOT_USER)}
    assert taken(shared, 2) == past
    found = shared.statistics()
    assert (found.upcalls_out, found.upcalls_waiting) == (12, 6)
    assert found.fallbacks == {"upcall_waited": 6}
    answered = set()
    while out:
        unique = out.pop()
        shared.answer(unique, error=errno.ENOENT)
        assert shared.reply().unique == unique
        answered.add(unique)
        if len(answered) <= 6:
            out |= taken(shared, 1)
    assert answered == set(asked)
    assert shared.statistics().upcalls_waiting == 0


def test_all_users_together_leave_an_eighth_of_the_tasks_to_root(shared):
    for uid in range(USER, USER + 5):
        for n in range(4):
            shared.send(LOOKUP, 1, b"%d\0" % n, uid=uid)
    taken(shared, 14)
    last = [shared.send(LOOKUP, 1, b"x\0", uid=ROOT_USER) for _ in range(2)]
    assert taken(shared, 2) == set(last)
    assert shared.statistics().upcalls_waiting == 6


def test_what_gives_something_back_never_waits(shared):
    for n in range(5):
        shared.send(LOOKUP, 1, b"%d\0" % n, uid=USER)
    taken(shared, 4)
    back = shared.send(RELEASE, NODE, struct.pack("=QIIQ", 1, 0, 0, 0), uid=USER)
    assert shared.upcall()[:2] == (RELEASE, back)


def test_an_interrupted_request_that_waits_is_answered_at_once(shared):
    asked = [shared.send(LOOKUP, 1, b"%d\0" % n, uid=USER) for n in range(5)]
    (waits,) = set(asked) - taken(shared, 4)
    shared.send(INTERRUPT, 0, struct.pack("=Q", waits), unique=waits | 1)
    assert shared.reply() == protocol.Reply(errno.EINTR, waits, b"")
    assert shared.statistics().upcalls_waiting == 0


def test_a_request_that_waits_too_long_is_given_up_and_never_sent(kernel):
    fake = kernel(control_tasks=4, upcall_timeout=1)
    first = fake.send(LOOKUP, 1, b"first\0", uid=USER)
    assert taken(fake, 1) == {first}
    second = fake.send(LOOKUP, 1, b"second\0", uid=USER)
    given_up = [fake.reply(), fake.reply()]
    assert {(reply.errorname, reply.unique) for reply in given_up} == {
        ("EIO", first),
        ("EIO", second),
    }
    # Control still works on the first one, so that the third waits until the late answer.
    third = fake.send(LOOKUP, 1, b"third\0", uid=USER)
    assert fake.statistics().upcalls_waiting <= 1
    fake.answer(first, error=errno.ENOENT)
    assert taken(fake, 1) == {third}
