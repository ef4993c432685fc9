"""The memory of an index, while it is built and afterwards."""

import tracemalloc

from zcfuse.tree.archive import _builder
from zcfuse.tree.archive._members import HardLink, Kind, Record

MEMBERS = 20_000
MOST_BYTES = 200


def built(members):
    """Return (bytes per member at the peak, bytes per member at the end)."""
    tracemalloc.start()
    try:
        builder = _builder.Builder("tar", 0, 0, 0)
        for item in members:
            builder.add(item)
        sections = builder.finish()
        return tracemalloc.get_traced_memory()[1] / MEMBERS, sum(
            len(section) for section in sections.values()
        ) / MEMBERS
    finally:
        tracemalloc.stop()


def file(name):
    return Record(name, Kind.FILE, 0o644, 0, 0, 0, size=10, offset=512, stored=10)


def test_a_member_in_a_directory_of_a_thousand_takes_less_than_200_bytes():
    peak, kept = built(file(b"train/%04d/%08d.jpg" % (n // 1000, n)) for n in range(MEMBERS))
    assert kept < MOST_BYTES / 2
    assert peak < MOST_BYTES


def test_a_member_in_one_large_directory_takes_little_more():
    peak, kept = built(file(b"%08d.jpg" % n) for n in range(MEMBERS))
    assert kept < MOST_BYTES / 2
    assert peak < MOST_BYTES * 1.5


def test_hard_links_take_no_more_than_files():
    links = (HardLink(b"d/%08d.jpg" % n, b"d/%08d.jpg" % (n - 1)) for n in range(1, MEMBERS))
    peak, kept = built([file(b"d/%08d.jpg" % 0), *links])
    assert kept < MOST_BYTES / 2
    assert peak < MOST_BYTES * 1.5


def test_duplicates_are_bounded_too():
    peak, _ = built(file(b"same") for _ in range(MEMBERS))
    assert peak < MOST_BYTES * 1.5
