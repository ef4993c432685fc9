"""How far ahead of readers a file is fetched, without a server."""

from zcfuse.remote._ahead import ReadAhead
from zcfuse.remote._cache import BLOCK_BYTES

KIB, MIB = 1 << 10, 1 << 20
CONNECTIONS = 16


def test_a_sequential_reader_gets_ahead_in_growing_steps_up_to_all_connections():
    ahead = ReadAhead(CONNECTIONS)
    found = [ahead.note(MIB, at * MIB) for at in range(64)]
    assert found[0] == (0, 0)
    assert found[1] == (4 * MIB, 512 * KIB)
    assert found[8] == (64 * MIB, 4 * MIB)
    assert found[-1] == (24 * BLOCK_BYTES, BLOCK_BYTES)
    assert [size for size, _ in found] == sorted(size for size, _ in found)


def test_a_reader_at_random_gets_nothing_ahead():
    ahead = ReadAhead(CONNECTIONS)
    assert {ahead.note(4 * KIB, at * 10 * MIB) for at in (5, 1, 9, 3, 7)} == {(0, 0)}


def test_reads_a_little_out_of_order_are_one_reader():
    ahead = ReadAhead(CONNECTIONS)
    for at in (0, 2, 1, 3, 5, 4, 6):
        found = ahead.note(MIB, at * MIB)
    assert found == (48 * MIB, 2 * MIB)


def test_two_readers_of_one_file_are_told_apart():
    ahead = ReadAhead(CONNECTIONS)
    for at in range(8):
        first = ahead.note(MIB, at * MIB)
        second = ahead.note(MIB, 500 * MIB + at * MIB)
    assert first == second == (56 * MIB, 2 * MIB)


def test_reads_that_another_answers_within_a_part_do_not_end_a_run():
    ahead = ReadAhead(CONNECTIONS)
    for at in range(32):
        ahead.note(MIB, at * MIB)
    assert ahead.note(MIB, 35 * MIB, begins_part=True)[0] > 0
    # A jump over bytes that nobody read is not the reader that goes on.
    assert ahead.note(MIB, 39 * MIB) == (0, 0)
    assert ahead.note(MIB, 60 * MIB, begins_part=True) == (0, 0)
