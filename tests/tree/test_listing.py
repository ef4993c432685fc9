import errno
import os
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import let_everyone_reach, requires

pytestmark = pytest.mark.usefixtures("descriptors")


def batches(listing, size, between=lambda: None):
    """Read a listing as a kernel does, `size` entries at a time."""
    start, names = 0, []
    while True:
        entries = listing.entries(start)
        batch = list(islice(entries, size))
        entries.close()
        if not batch:
            return names
        names += [name for _, name, _, _ in batch]
        start = batch[-1][0]
        between()


def test_entries_agree_with_lookup(source, mirror):
    (source / "f").write_text("x")
    (source / "d").mkdir()
    (source / "l").symlink_to("f")
    for _, name, node, attributes in mirror.listing(mirror.root).entries(2):
        found, expected = mirror.lookup(mirror.root, name)
        assert (node.identity, attributes) == (found.identity, expected)


def test_dots_are_the_directory_and_its_parent(source, mirror):
    (source / "d").mkdir()
    directory, _ = mirror.lookup(mirror.root, b"d")
    (_, dot, node, _), (_, dots, above, _) = mirror.listing(directory).entries(0)
    assert (dot, node.identity) == (b".", directory.identity)
    assert (dots, above.identity) == (b"..", mirror.root.identity)


def test_a_file_is_refused_as_a_directory(source, mirror):
    (source / "f").touch()
    node, _ = mirror.lookup(mirror.root, b"f")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        mirror.listing(node)
    assert caught.value.errno in (errno.ENOTDIR, errno.ESTALE)


@given(
    before=st.sets(st.integers(0, 30)),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=40),
    size=st.integers(1, 7),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_each_name_that_stays_is_listed_once_while_others_come_and_go(
    source, mirror, before, changes, size
):
    for entry in os.scandir(source):
        os.unlink(entry)
    for number in before:
        (source / str(number)).touch()
    pending = list(changes)
    removed = set()

    def change():
        for create, number in (pending.pop() for _ in range(min(2, len(pending)))):
            if create:
                (source / str(number)).touch()
            elif (source / str(number)).exists():
                (source / str(number)).unlink()
                removed.add(number)

    names = batches(mirror.listing(mirror.root), size, change)
    assert len(names) == len(set(names))
    assert {str(number).encode() for number in before - removed} <= set(names)
    assert set(names) <= {str(number).encode() for number in before} | {b".", b".."}


def test_an_offset_stands_for_the_same_name_later(source, mirror):
    for number in range(20):
        (source / str(number)).touch()
    listing = mirror.listing(mirror.root)
    entries = list(listing.entries(0))
    for name in (b"3", b"7", entries[5][1]):
        (source / os.fsdecode(name)).unlink(missing_ok=True)
    again = list(listing.entries(entries[9][0]))
    expected = [name for _, name, _, _ in entries[10:] if name not in (b"3", b"7")]
    assert [name for _, name, _, _ in again] == expected


def test_a_vanished_directory_is_an_error_and_no_early_end(source, mirror):
    (source / "d").mkdir()
    for number in range(5):
        (source / "d" / str(number)).touch()
    listing = mirror.listing(mirror.lookup(mirror.root, b"d")[0])
    (source / "d").rename(source / "e")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        list(listing.entries(3))
    assert caught.value.errno == errno.ESTALE


def test_a_large_directory_is_listed_whole(source, mirror):
    for number in range(2000):
        os.close(os.open(source / f"{number:>0100}", os.O_CREAT | os.O_WRONLY))
    listing = mirror.listing(mirror.root)
    assert len(batches(listing, 37)) == 2002
    listing.close()
    assert batches(listing, 10) == [b".", b".."]


AS_NOBODY = """
import os, sys
from zcfuse.tree import Mirror
os.setgroups([]); os.setgid(65534); os.setuid(65534)
mirror = Mirror(sys.argv[1])
directory, _ = mirror.lookup(mirror.root, b"d")
for _, name, node, attributes in mirror.listing(directory).entries(2):
    print(name.decode(), oct(attributes.mode), node.volatile)
    try:
        mirror.lookup(directory, name)
    except PermissionError:
        print("denied")
"""


@requires("root")  # to switch to another user
def test_names_without_search_permission_are_listed_and_not_to_be_cached(source, child):
    (source / "d").mkdir()
    (source / "d/f").touch()
    os.chmod(source / "d", 0o744)
    let_everyone_reach(source)
    assert child(AS_NOBODY, source) == "f 0o100000 True\ndenied\n"
