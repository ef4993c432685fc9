"""READ over a socket pair: every serving path returns the backing file's bytes."""

import errno
import os
import random
import struct
from pathlib import Path

import pytest

from tests.datapath.kernel import INTERRUPT, LOOKUP, LSEEK, READ
from tests.support import eventually
from zcfuse.datapath import WHOLE_FILE, Presence, arm_faults

NODE = 5
PATHS = ["pool", "mmap", "splice", "auto"]
LARGEST = 252 * 4096
ONLY = {"pool": "pool", "mmap": "mmap", "splice": "splice"}


def served_by(kernel, path):
    return kernel.statistics().paths[path]


@pytest.mark.parametrize("path", PATHS)
def test_random_reads_are_the_bytes_of_the_backing_file(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    source = random.Random(7)
    for _ in range(60):
        offset = source.randrange(len(data) + 5000)
        size = source.choice([1, 511, 4096, 65_536, source.randrange(1, LARGEST)])
        reply = fake.read(NODE, offset, size)
        assert (reply.error, reply.body) == (0, os.pread(fd, size, offset))


@pytest.mark.parametrize(("path", "copies"), [("pool", 2.0), ("mmap", 0.0), ("splice", 0.0)])
def test_the_ledger_counts_the_copies_that_the_path_made(kernel, backing, path, copies):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    for offset in range(0, len(data), LARGEST):
        fake.read(NODE, offset, LARGEST)
    counts = served_by(fake, ONLY[path])
    assert (counts.bytes, counts.copies_per_byte) == (len(data), copies)


@pytest.mark.parametrize("path", PATHS)
def test_the_end_of_the_file_is_an_empty_reply(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert fake.read(NODE, len(data), 4096).body == b""
    assert fake.read(NODE, 1 << 45, 4096).body == b""


@pytest.mark.parametrize("path", PATHS)
def test_holes_and_offsets_past_4_gib_read_as_natively(kernel, tmp_path, path):
    file = tmp_path / "sparse"
    fd = os.open(file, os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 1 << 40)
    os.pwrite(fd, b"island", (1 << 39) + 100)
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    for offset in (0, (1 << 32) - 10, 1 << 39, (1 << 40) - 8192):
        assert fake.read(NODE, offset, 65_536).body == os.pread(fd, 65_536, offset)
    os.close(fd)


@pytest.mark.parametrize("path", PATHS)
def test_a_truncated_file_gives_a_short_read(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    fake.read(NODE, 0, LARGEST)
    os.truncate(fd, 100_000)
    assert fake.read(NODE, 65_536, 65_536).body == data[65_536:100_000]
    assert fake.read(NODE, 262_144, 65_536).body == b""


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_grew_is_read_to_its_new_end(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    fake.read(NODE, len(data) - 100, 4096)
    os.pwrite(fd, b"more" * 5000, len(data))
    assert fake.read(NODE, len(data) - 100, 65_536).body == os.pread(fd, 65_536, len(data) - 100)


@pytest.mark.parametrize(
    ("path", "call"), [("pool", "preadv"), ("splice", "splice_in"), ("auto", "splice_in")]
)
def test_an_error_in_the_middle_of_a_reply_is_that_errno_and_the_connection_lives(
    kernel, backing, path, call
):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    # The first call is short and the second fails, with half the reply in the pipe or buffer.
    assert arm_faults(f"{call}:short:count=1")
    assert fake.read(NODE, 0, 65_536).body == data[:65_536]
    assert arm_faults(f"{call}:EIO:count=1")
    assert fake.read(NODE, 0, 65_536).error == errno.EIO
    assert fake.read(NODE, 0, 65_536).body == data[:65_536]


def test_a_number_that_is_no_errno_becomes_eio_because_the_kernel_would_go_on_waiting(
    kernel, backing
):
    fake = kernel(path="pool")
    fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    assert arm_faults("preadv:ENOTSUPP:count=1")
    assert fake.read(NODE, 0, 4096).error == errno.EIO


@pytest.mark.parametrize(("path", "call"), [("pool", "preadv"), ("splice", "splice_in")])
def test_short_calls_change_neither_bytes_nor_copies_per_byte(kernel, backing, path, call):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert arm_faults(f"{call}:short")
    assert fake.read(NODE, 5, 300_000).body == data[5:300_005]
    counts = served_by(fake, path)
    assert counts.short > 0
    assert counts.copies_per_byte == (2.0 if path == "pool" else 0.0)


@pytest.mark.parametrize(
    ("path", "faults", "reason"),
    [
        ("splice", "splice_in:EINVAL:count=1", "splice_refused"),
        ("splice", "splice_in:EAGAIN:count=1", "splice_pipe_too_short"),
        ("splice", "vmsplice:ENOMEM:count=1", "splice_no_pipe"),
        ("mmap", "vmsplice:EFAULT:after=1:count=1", "mmap_beyond_end"),
        ("mmap", "vmsplice:short:after=1:count=1", "mmap_beyond_end"),
        ("mmap", "mmap:ENOMEM:count=1", "mmap_refused"),
    ],
)
def test_what_a_path_cannot_serve_the_pool_serves_with_the_reason_counted(
    kernel, backing, path, faults, reason
):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert arm_faults(faults)
    assert fake.read(NODE, 8192, 65_536).body == data[8192 : 8192 + 65_536]
    statistics = fake.statistics()
    assert statistics.fallbacks[reason] == 1
    assert statistics.paths["pool"].bytes == 65_536
    assert fake.read(NODE, 0, 65_536).body == data[:65_536]
    assert served_by(fake, path).bytes == 65_536


@pytest.mark.parametrize("path", ["splice", "mmap"])
def test_a_pipe_that_may_not_grow_serves_what_fits_and_the_pool_the_rest(
    kernel, backing, path, monkeypatch
):
    fd, data = backing
    fake = kernel(path=path)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    fake.read(NODE, 0, 4096)
    # A fault discards the pipe; its replacement stays at 16 slots.
    assert arm_faults("splice_in:EINVAL:count=1,vmsplice:EINVAL:count=1,pipe:EPERM:after=1")
    fake.read(NODE, 0, 4096)
    fake.read(NODE, 0, 4096)
    assert fake.read(NODE, 0, 262_144).body == data[:262_144]
    reasons = fake.statistics().fallbacks
    assert any("pipe" in reason for reason in reasons)


def test_under_auto_small_reads_are_copied_and_large_ones_spliced(kernel, backing):
    fd, _ = backing
    fake = kernel(path="auto", splice_min=32_768)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    fake.read(NODE, 0, 32_767)
    fake.read(NODE, 0, 32_768)
    statistics = fake.statistics()
    assert statistics.paths["pool"].bytes == 32_767
    assert statistics.paths["splice"].bytes == 32_768
    assert statistics.fallbacks["splice_too_small"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_file_of_several_extents_reads_as_their_concatenation(kernel, tmp_path, path):
    pieces = [os.urandom(10_000), os.urandom(5000), os.urandom(100_000)]
    fds = []
    for number, piece in enumerate(pieces):
        file = tmp_path / str(number)
        file.write_bytes(b"skip" + piece)
        fds.append(os.open(file, os.O_RDONLY))
    fake = kernel(path=path)
    extents = [(fd, 4, len(piece)) for fd, piece in zip(fds, pieces, strict=True)]
    mode, reason = fake.path.install(NODE, extents)
    assert (mode, reason) == ("cached", "passthrough_extents")
    whole = b"".join(pieces)
    for offset, size in ((0, 200_000), (9_999, 2), (12_000, 50_000), (14_999, 10), (114_999, 99)):
        assert fake.read(NODE, offset, size).body == whole[offset : offset + size]
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("path", PATHS)
def test_holes_are_zeros_wherever_they_lie_and_however_long(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    holes = [(-1, 0, 5000), (fd, 7, 10_000), (-1, 0, 1 << 40), (fd, 0, 3), (-1, 0, 1)]
    assert fake.path.install(NODE, holes)[0] == "cached"
    assert fake.read(NODE, 0, 20_000).body == bytes(5000) + data[7:10_007] + bytes(5000)
    assert fake.read(NODE, 1 << 39, LARGEST).body == bytes(LARGEST)
    assert fake.read(NODE, (1 << 40) + 15_000 - 2, 99).body == bytes(2) + data[:3] + bytes(1)
    assert fake.read(NODE, (1 << 40) + 15_004, 99).body == b""


@pytest.mark.parametrize("path", ["splice", "mmap"])
def test_the_largest_request_over_the_border_of_two_parts_needs_no_copy(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    cut = 100 * 4096 + 2
    fake.path.install(NODE, [(fd, 4095, cut), (fd, 1_000_001, 1_500_000)])
    whole = data[4095 : 4095 + cut] + data[1_000_001:2_500_001]
    for offset in (0, 4096 + 1, 4094, cut - 1):
        assert fake.read(NODE, offset, LARGEST).body == whole[offset : offset + LARGEST]
    counts = served_by(fake, path)
    assert (counts.requests, counts.copies_per_byte) == (4, 0.0)


def test_more_parts_than_the_pipe_has_slots_are_served_by_the_pool_with_the_reason(kernel, backing):
    fd, data = backing
    fake = kernel(path="splice")
    fake.path.install(NODE, [(fd, 10 * n, 10) for n in range(1000)])
    assert fake.read(NODE, 5, 9000).body == data[5:9005]
    statistics = fake.statistics()
    assert statistics.paths["pool"].requests == 1
    assert statistics.fallbacks["splice_pipe_too_short"] == 1


@pytest.mark.parametrize("path", PATHS)
def test_a_part_that_shrank_ends_the_read_where_it_ends_now(kernel, backing, tmp_path, path):
    fd, data = backing
    (tmp_path / "part").write_bytes(b"p" * 10_000)
    part = os.open(tmp_path / "part", os.O_RDWR)
    fake = kernel(path=path)
    fake.path.install(NODE, [(part, 0, 10_000), (fd, 0, 5000)])
    os.truncate(part, 6000)
    assert fake.read(NODE, 0, 20_000).body == b"p" * 6000
    assert fake.read(NODE, 8000, 1000).body == b""
    assert fake.read(NODE, 10_000, 9999).body == data[:5000]
    os.close(part)


@pytest.mark.parametrize("path", ["pool", "mmap", "splice"])
def test_a_file_may_be_served_by_a_path_of_its_own(kernel, backing, path):
    fd, data = backing
    fake = kernel(path="auto")
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)], path)
    assert fake.read(NODE, 3, 65_536).body == data[3 : 65_536 + 3]
    assert served_by(fake, path).requests == 1


def test_a_file_that_is_to_go_up_has_no_lease(kernel, backing):
    fake = kernel(path="auto")
    assert fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)], "upcall") == ("upcall", "")
    fake.send(READ, NODE, struct.pack("=QQIIQII", 0, 0, 10, 0, 0, 0, 0))
    assert fake.upcall()[0] == READ


@pytest.mark.parametrize("path", PATHS)
def test_only_reads_of_present_pieces_of_a_growing_file_are_served(kernel, backing, path):
    fd, data = backing
    fake = kernel(path=path)
    piece = 128 << 10
    presence = Presence(-(-len(data) // piece), piece)
    mode = fake.path.install(NODE, [(fd, 0, len(data))], "", presence)
    assert mode == ("cached", "passthrough_incomplete")
    presence.show(2, 4)
    presence.show(24, 1000)  # the last one, and none behind it
    for offset, size in (
        (2 * piece, 2 * piece),
        (3 * piece + 5, 100),
        (24 * piece, 2 * piece),
        (len(data) - 3, 65_536),
        (1 << 45, 4096),
    ):
        reply = fake.read(NODE, offset, size)
        assert (reply.error, reply.body) == (0, os.pread(fd, size, offset))
    presence.hide(3, 4)
    beyond = ((0, 10), (2 * piece - 1, 2), (3 * piece - 1, 2), (3 * piece, 1), (24 * piece - 1, 9))
    for offset, size in beyond:
        unique = fake.send(READ, NODE, struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0))
        assert fake.upcall()[:2] == (READ, unique)
        fake.answer(unique, b"by Python")
        assert fake.reply().body == b"by Python"
    assert fake.statistics().fallbacks["read_not_present"] == len(beyond)


def test_nobody_is_told_of_the_holes_of_a_growing_file(kernel, backing):
    fake = kernel(path="auto")
    presence = Presence(1, 128 << 10)
    presence.show(0, 1)
    fake.path.install(NODE, [(backing[0], 0, 4096)], "", presence)
    fake.send(LSEEK, NODE, struct.pack("=QQII", 0, 0, os.SEEK_HOLE, 0))
    assert fake.upcall()[0] == LSEEK


def test_a_path_that_is_none_is_refused(kernel, backing):
    with pytest.raises(ValueError, match="unknown path 'fast'"):
        kernel().path.install(NODE, [(backing[0], 0, WHOLE_FILE)], "fast")


def test_a_file_of_many_parts_costs_a_descriptor_a_file(kernel, backing):
    fd, data = backing
    fake = kernel()
    before = len(os.listdir("/proc/self/fd"))
    fake.path.install(NODE, [(fd, n, 1) for n in range(100_000)])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    for offset, size in ((0, 3), (99_990, 100), (50_000, 1), (100_000, 1)):
        wanted = data[offset : min(offset + size, 100_000)]
        assert fake.read(NODE, offset, size).body == wanted


def test_parts_without_bytes_are_passed_over(kernel, backing):
    fd, data = backing
    fake = kernel()
    empty = (fd, 9, 0)
    fake.path.install(NODE, [empty, (fd, 5, 5), empty, empty, (fd, 0, 3), (-1, 0, 0), empty])
    whole = data[5:10] + data[:3]
    for offset in range(10):
        assert fake.read(NODE, offset, 4).body == whole[offset : offset + 4]
    fake.path.install(NODE, [])
    assert fake.read(NODE, 0, 4).body == b""


def test_more_files_than_the_lock_budget_are_served_from_windows_that_come_and_go(
    kernel, tmp_path: Path
):
    fake = kernel(path="mmap", lock_budget=6 << 20, threads=1)
    for node in range(2, 42):
        file = tmp_path / str(node)
        file.write_bytes(os.urandom(1 << 20))
        fd = os.open(file, os.O_RDONLY)
        fake.path.install(node, [(fd, 0, WHOLE_FILE)])
        assert fake.read(node, 4096, 500_000).body == os.pread(fd, 500_000, 4096)
        os.close(fd)
    windows = fake.statistics().windows
    assert windows.locked <= 6 << 20
    used, limit = fake.statistics().lock_budget
    assert used <= limit


def test_without_a_lock_budget_everything_works_unlocked_and_says_so(kernel, backing):
    fd, data = backing
    fake = kernel(path="mmap", lock_budget=0)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert fake.read(NODE, 0, 65_536).body == data[:65_536]
    statistics = fake.statistics()
    assert statistics.windows.locked == 0
    assert statistics.fallbacks["mmap_unlocked"] == 1


def test_reads_of_a_slow_backing_file_leave_a_thread_for_lookups(kernel, backing):
    fd, data = backing
    fake = kernel(path="pool", threads=3)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert arm_faults("preadv:slow:count=4")
    for number in range(4):
        fake.send(READ, NODE, struct.pack("=QQIIQII", 0, number * 4096, 4096, 0, 0, 0, 0))
    fake.send(LOOKUP, 1, b"name\0")
    assert fake.upcall()[0] == LOOKUP
    assert fake.statistics().paths["pool"].requests == 0
    assert {fake.reply().body for _ in range(4)} == {data[n * 4096 :][:4096] for n in range(4)}
    assert fake.statistics().reads_waited == 4


READ_A_PAGE = struct.pack("=QQIIQII", 0, 0, 4096, 0, 0, 0, 0)
READER = 1000  # an ordinary user
SHARE = 4  # of the reading threads


def test_an_interrupt_that_overtakes_its_read_ends_the_read_before_its_turn(kernel, backing):
    fake = kernel(path="pool", threads=2)
    fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    assert arm_faults("preadv:slow")
    for _ in range(SHARE):
        fake.send(READ, NODE, READ_A_PAGE, uid=READER)
    unique = 1000
    fake.send(INTERRUPT, NODE, struct.pack("=Q", unique), unique=unique | 1)
    assert eventually(lambda: fake.statistics().interrupts == 1)
    fake.send(READ, NODE, READ_A_PAGE, unique=unique, uid=READER)
    replies = [fake.reply() for _ in range(SHARE + 1)]
    ended = next(reply for reply in replies if reply.unique == unique)
    assert ended.errorname == "EINTR"
    assert fake.statistics().paths["pool"].requests == SHARE


def test_a_user_whose_reads_hang_keeps_no_other_user_from_reading(kernel, backing):
    fd, data = backing
    fake = kernel(path="pool", threads=2)
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    assert arm_faults("preadv:slow:count=100")
    for _ in range(50):
        fake.send(READ, NODE, READ_A_PAGE, uid=READER)
    other = fake.send(READ, NODE, READ_A_PAGE, uid=READER + 1)
    replies = [fake.reply() for _ in range(SHARE + 2)]
    assert other in {reply.unique for reply in replies}
    assert {reply.body for reply in replies} == {data[:4096]}


def test_reads_of_a_user_take_at_most_half_of_what_the_kernel_sends_ahead(kernel, backing):
    fake = kernel(path="pool", threads=2, shared=True)
    fake.path.install(NODE, [(backing[0], 0, WHOLE_FILE)])
    assert arm_faults("preadv:slow")
    for _ in range(700):
        fake.send(READ, NODE, READ_A_PAGE, uid=READER)
    errors = []
    while "EAGAIN" not in errors:
        errors.append(fake.reply().errorname)
    assert eventually(lambda: fake.statistics().fallbacks["read_refused"] > 100)
    assert fake.statistics().fallbacks["read_refused"] <= 700 - 512


def test_data_and_holes_are_found_in_the_backing_file(kernel, tmp_path):
    fd = os.open(tmp_path / "holes", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 1 << 20)
    os.pwrite(fd, b"x" * 4096, 512 * 1024)
    fake = kernel()
    fake.path.install(NODE, [(fd, 0, WHOLE_FILE)])
    for offset, whence in ((0, os.SEEK_DATA), (0, os.SEEK_HOLE), (512 * 1024, os.SEEK_HOLE)):
        fake.send(LSEEK, NODE, struct.pack("=QQII", 0, offset, whence, 0))
        assert struct.unpack("=Q", fake.reply().body)[0] == os.lseek(fd, offset, whence)
    fake.send(LSEEK, NODE, struct.pack("=QQII", 0, 1 << 21, os.SEEK_DATA, 0))
    assert fake.reply().error == errno.ENXIO
    os.close(fd)
