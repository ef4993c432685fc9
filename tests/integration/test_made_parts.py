"""A `Concat` or a `Slice` whose bytes a program makes in part, beside the same bytes of files."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import Shows, write
from tests.support import requires

pytestmark = requires("mounting")

TREE = """
asked = []

async def squares(offset, size):
    asked.append((offset, size))
    return bytes(n * n % 251 for n in range(offset, offset + size))

async def by_user(offset, size, who):
    return (b"%010d" % who.uid)[offset:offset + size]

made = Computed(5000, squares)
tree = Dir({
    "all": Concat([Slice(first, 3, 4097), made, Zeros(17), Bytes(b"bytes"),
                   Slice(made, 100, 333), last]),
    "slice": Slice(Concat([first, made]), 9_990, 60),
    "only": Concat([made]),
    "twice": Concat([made, made]),
    "log": Concat([Computed(10, by_user), last]),
    "short": Concat([Slice(first, 9_990, 100), made]),
})
options = MountOptions(path=path, directory_lease=leased, cache_timeout=0)
"""
SQUARES = bytes(n * n % 251 for n in range(5000))
FIRST = bytes(n % 247 for n in range(10_000))


@pytest.mark.parametrize("path", ["naive", "auto"])
@pytest.mark.parametrize("leased", [True, False])
def test_made_parts_lie_between_the_bytes_of_files(
    source: str, shows: Shows, path: str, leased: bool
) -> None:
    first, last = write(source, "first", FIRST), write(source, "last", b"last")
    program, client = shows(TREE, first=first, last=last, path=path, leased=leased)
    wanted = {
        "all": FIRST[3:4100] + SQUARES + bytes(17) + b"bytes" + SQUARES[100:433] + b"last",
        "slice": (FIRST + SQUARES)[9_990:10_050],
        "only": SQUARES,
        "twice": SQUARES * 2,
        "log": b"%010d" % os.getuid() + b"last",
        "short": FIRST[9_990:],
    }
    for name, content in wanted.items():
        assert client.value(f"content({name!r})") == content
        assert client.value(f"os.stat(p({name!r})).st_size") == len(content)
    for start, size in ((0, 1), (4096, 2), (4097, 5000), (9_000, 200), (9_096, 40), (9_400, 100)):
        found = client.value(f"os.pread(opened('all'), {size}, {start})")
        assert found == wanted["all"][start : start + size]
    assert all(size > 0 and at + size <= 5000 for at, size in program.run("return asked"))


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_last_file_grows_behind_a_made_part(source: str, shows: Shows, path: str) -> None:
    first, last = write(source, "first", b""), write(source, "last", b"last")
    _, client = shows(TREE, first=first, last=last, path=path, leased=True)
    before = b"%010d" % os.getuid() + b"last"
    client.value("kept = os.open(p('log'), os.O_RDONLY)")
    assert client.value("os.read(kept, 1 << 20)") == before
    assert client.value("os.read(kept, 1 << 20)") == b""
    with open(last, "ab") as file:
        file.write(b" and more")
    assert client.value("os.read(kept, 1 << 20)") == b" and more"
    assert client.value("os.fstat(kept).st_size") == len(before + b" and more")


def test_another_file_behind_a_part_is_another_file(source: str, shows: Shows) -> None:
    first, last = write(source, "first", b""), write(source, "last", b"last")
    _, client = shows(TREE, first=first, last=last, path="auto", leased=True)
    client.value("kept = os.open(p('log'), os.O_RDONLY)")
    os.rename(write(source, "new", b"new"), last)
    assert client.value("content('log')")[10:] == b"new"
    assert client.value("os.pread(kept, 100, 10)") == b"last"
