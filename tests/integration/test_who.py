"""A policy learns who asks: at lookups, listings, opens and reads, with supplementary groups."""

from __future__ import annotations

import os

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Shows
from tests.support import requires
from zcfuse import Dir, Who

OTHER = 65534


def test_the_groups_are_those_of_the_process() -> None:
    assert Who(os.getuid(), os.getgid(), os.getpid()).groups == set(os.getgroups())
    assert Who(0, 0, 0).groups == frozenset()


@requires("mounting", "root")
def test_an_open_and_a_read_know_their_client(public: str, shows: Shows) -> None:
    program, client = shows(
        "options = MountOptions(allow_other=True)\n"
        "async def read(offset, size, who):\n"
        "    return f'{who.uid:05}'.encode()[offset:offset + size]\n"
        "class Guarded(Dir):\n"
        "    asked = []\n"
        "    async def may_open(self, name, who):\n"
        "        self.asked.append((name, who.uid, sorted(who.groups)))\n"
        "        if who.uid != 0 and name == 'secret':\n"
        "            raise PermissionError(13, 'no')\n"
        "tree = Guarded({'who': Computed(5, read), 'secret': Bytes(b's')})",
        at=os.path.join(public, "mnt"),
    )
    other = Client(program.mountpoint, program, uid=OTHER)
    try:
        client.value("kept = os.open(p('who'), os.O_RDONLY)")
        assert other.value("content('who')") == b"%05d" % OTHER
        assert client.value("os.pread(kept, 9, 0)") == b"00000"
        client.value("secret = os.open(p('secret'), os.O_RDONLY)")
        assert other.outcome("content('secret')") == "EACCES"
    finally:
        other.close()
    asked = program.run("return tree.asked")
    groups = sorted(os.getgroups())
    assert asked == [
        ("who", 0, groups),
        ("who", OTHER, []),
        ("secret", 0, groups),
        ("secret", OTHER, []),
    ]


@pytest.mark.parametrize("name", ["who", "other"])
def test_a_read_that_asks_for_nobody_gets_two_arguments(name: str) -> None:
    from zcfuse import Computed

    async def read(offset: int, size: int) -> bytes:
        return b"x" * size

    async def with_who(offset: int, size: int, *, who: Who) -> bytes:
        return str(who.uid).encode()

    chosen = with_who if name == "who" else read
    made = Computed(1, chosen).made_for(Who(7, 7, 7), 0, 1)
    with pytest.raises(StopIteration) as ended:
        made.send(None)  # type: ignore[attr-defined]
    assert ended.value.value == (b"7" if name == "who" else b"x")


def test_a_directory_that_leases_answers_cannot_be_asked_at_each_open() -> None:
    with pytest.raises(TypeError, match="without may_open"):

        class Both(Dir):
            leases = True

            async def may_open(self, name: str, who: Who) -> None:
                pass
