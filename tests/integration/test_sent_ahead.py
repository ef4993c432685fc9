"""The bytes of a small file without passthrough reach the kernel with the first open."""

from __future__ import annotations

import os

import pytest

from tests.integration.client import Client
from tests.integration.client_process import digest
from tests.integration.conftest import RING, Shows, write
from tests.integration.program import Program
from tests.support import requires

pytestmark = requires("passthrough")
BYTES = os.urandom(200_000)
TREE = """
tree = Dir({
    "slice": Slice(where, 1, 50_000),
    "joined": Concat([Slice(where, 3, 7), Zeros(9), Bytes(b"end")]),
    "large": Slice(where, 0, 1 << 16),
    "rest": Slice(where, 199_000),
    "pool": Slice(where, 5, 5, path="pool"),
    "empty": Slice(where, 0, 0),
})
"""
SHOWN = {
    "slice": BYTES[1:50_001],
    "joined": BYTES[3:10] + bytes(9) + b"end",
    "large": BYTES[: 1 << 16],
    "rest": BYTES[199_000:],
    "pool": BYTES[5:10],
    "empty": b"",
}
WITHOUT_READ = {"slice", "joined", "rest", "empty"}


@pytest.fixture(params=["dev", RING])
def transport(request: pytest.FixtureRequest) -> str:
    """The option of a mount for a transport."""
    if request.param == "ring":
        request.getfixturevalue("ring_switch")
    return "uring" if request.param == "ring" else "dev"


@pytest.fixture
def described(shows: Shows, source: str, transport: str) -> tuple[Program, Client]:
    """A mount of `TREE`."""
    program, client = shows(
        f"{TREE}options = MountOptions(transport={transport!r})", where=write(source, "file", BYTES)
    )
    assert program.statistics()["datapath"]["transport"]["kind"] == transport
    return program, client


def reads(program: Program) -> int:
    return int(program.statistics()["datapath"]["requests"].get("READ", 0))


def served(program: Program) -> int:
    return sum(path["bytes"] for path in program.statistics()["datapath"]["paths"].values())


@pytest.mark.parametrize("name", SHOWN)
def test_a_first_open_brings_the_bytes_of_a_small_file(
    described: tuple[Program, Client], name: str
) -> None:
    program, client = described
    before = served(program)
    assert client.value(f"content({name!r})") == SHOWN[name]
    assert (reads(program) == 0) == (name in WITHOUT_READ)
    assert served(program) - before == len(SHOWN[name])
    # Later opens keep these pages.
    at = reads(program)
    assert client.value(f"content({name!r})") == SHOWN[name]
    assert reads(program) == at


def test_a_file_that_changes_between_opens_shows_its_new_bytes(
    shows: Shows, source: str, transport: str
) -> None:
    where = write(source, "file", BYTES)
    options = f"options = MountOptions(cache_timeout=0, transport={transport!r})"
    _, client = shows(TREE + options, where=where)
    for _ in range(5):
        changed = os.urandom(len(BYTES))
        with open(where, "r+b") as file:
            file.write(changed)
        assert client.value("content('slice')") == changed[1:50_001]
    os.truncate(where, 100)
    assert client.value("content('slice')") == changed[1:100]


@pytest.mark.parametrize("flags", ["os.O_DIRECT", "os.O_RDONLY"])
def test_an_open_that_bypasses_the_cache_brings_nothing(
    described: tuple[Program, Client], flags: str
) -> None:
    program, client = described
    client.value(f"os.close(opened('slice', {flags}))")
    assert (served(program) == 0) == (flags == "os.O_DIRECT")
    assert client.value("by_direct('slice', [(0, 4096)])") == client.value(
        "by_read('slice', [(0, 4096)])"
    )


def test_many_clients_that_open_the_same_new_files_at_once_read_the_same_bytes(
    shows: Shows, source: str, transport: str
) -> None:
    program, client = shows(
        "tree = Dir({f'{n}': Slice(where, n, 40_000) for n in range(1000)})\n"
        f"options = MountOptions(transport={transport!r})",
        where=write(source, "file", BYTES),
    )
    others = [Client(program.mountpoint, program) for _ in range(5)]
    try:
        for one in (client, *others):
            one.begin("[digest(content(f'{n}')) for n in range(1000)]")
        found = [one.finish() for one in (client, *others)]
    finally:
        for one in others:
            one.close()
    assert found == [("value", [digest(BYTES[n : n + 40_000]) for n in range(1000)])] * 6
