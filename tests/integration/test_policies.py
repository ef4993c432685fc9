"""Policies: answers by user, hidden names, failures and chosen paths."""

from __future__ import annotations

import time

import pytest

from tests.integration.client import Client
from tests.integration.conftest import PASSTHROUGH
from tests.support import requires

pytestmark = requires("mounting")

POLICY = """
class Policy(Dir):
    asked = []

    async def lookup(self, name, who):
        self.asked.append((name, who.uid, who.gid, who.pid))
        if name == "mine":
            return Bytes(b"of %d" % who.uid)
        if name == "same":
            return Bytes(b"for everybody")
        if name == f"only-{who.uid}":
            return Dir({"inner": Bytes(b"inside")}, key=name)
        return None

    async def list(self, who):
        return ["mine", "same", f"only-{who.uid}"]

tree = Dir({"policy": Policy()})
options = MountOptions(path=path, cache_timeout=1000, allow_other=True)
"""


@pytest.fixture
def two(public, shows):
    """A program with the policy, and two users."""
    made = []

    def show(path="auto"):
        program, client = shows(POLICY, path=path, at=f"{public}/mnt")
        client.close()
        made.extend(Client(program.mountpoint, program, uid=uid) for uid in (1001, 1002))
        return program, *made

    yield show
    for client in made:
        client.close()


@requires("root")
@pytest.mark.parametrize("path", ["naive", "upcall", "splice", PASSTHROUGH])
def test_two_users_taking_turns_each_get_their_own_answer(two, path) -> None:
    _, alice, bob = two(path)
    for _ in range(5):
        for client, uid, other in ((alice, 1001, 1002), (bob, 1002, 1001)):
            assert client.value("content('policy/mine')") == b"of %d" % uid
            assert client.value(f"content('policy/only-{uid}/inner')") == b"inside"
            assert client.outcome(f"os.stat(p('policy/only-{other}'))") == "ENOENT"
            listed = client.value("sorted(os.listdir(p('policy')))")
            assert listed == [b"mine", b"only-%d" % uid, b"same"]
            assert client.value("content('policy/same')") == b"for everybody"


@requires("root")
def test_two_users_at_once_have_files_of_their_own_open_under_one_name(two) -> None:
    _, alice, bob = two()
    for client in (alice, bob, alice, bob):
        client.value("globals().update(fd=opened('policy/mine'))")
    assert alice.value("os.pread(fd, 99, 0)") == b"of 1001"
    assert bob.value("os.pread(fd, 99, 0)") == b"of 1002"
    inos = [client.value("os.fstat(fd).st_ino") for client in (alice, bob)]
    assert inos[0] != inos[1]
    assert alice.value("os.stat(p('policy/mine')).st_ino") == inos[0]


@requires("root")
def test_two_users_in_a_race_never_get_the_answer_of_the_other(two) -> None:
    _, alice, bob = two()
    loop = "[content('policy/mine') for _ in range(300)]"
    alice.begin(loop)
    bob.begin(loop)
    assert alice.finish() == ("value", [b"of 1001"] * 300)
    assert bob.finish() == ("value", [b"of 1002"] * 300)


@requires("root")
def test_a_policy_is_told_who_asks(two) -> None:
    program, alice, _ = two()
    alice.outcome("os.stat(p('policy/who'))")
    name, uid, gid, pid = program.run("return Policy.asked[-1]")
    assert (name, uid, pid) == ("who", 1001, alice.process.pid)
    assert gid == alice.value("os.getgid()")


FAILING = """
class Failing(Dir):
    async def lookup(self, name, who):
        if name == "bug":
            return 1 // 0
        if name == "quota":
            raise OSError(122, "over quota")
        if name == "never":
            await trio.sleep_forever()
        if name == "nonsense":
            return 3
        return Bytes(b"fine")

    async def list(self, who):
        raise KeyError("no list")

async def endless(offset, size):
    await trio.sleep_forever()

async def short(offset, size):
    return bytes(size // 2)

async def bug(offset, size):
    raise ValueError("a bug in read")

async def none(offset, size):
    raise OSError(28, "full")

tree = Dir({"failing": Failing(), "endless": Computed(10, endless), "short": Computed(10, short),
            "bug": Computed(10, bug), "none": Computed(10, none), "fine": Bytes(b"fine")})
options = MountOptions(path=path, answer_timeout=2)
"""


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_policy_that_fails_costs_its_caller_an_errno_and_the_mount_lives(shows, path) -> None:
    program, client = shows(FAILING, path=path)
    for name, errno in (("bug", "EIO"), ("quota", "EDQUOT"), ("nonsense", "EIO")):
        assert client.outcome(f"content('failing/{name}')") == errno
    assert client.outcome("os.listdir(p('failing'))") == "EIO"
    assert client.value("content('failing/else')") == b"fine"
    for name, errno in (("short", "EIO"), ("bug", "EIO"), ("none", "ENOSPC")):
        assert client.outcome(f"content({name!r})") == errno
    log = program.log()
    for words in ("ZeroDivisionError", "KeyError: 'no list'", "a bug in read", "returned 5 bytes"):
        assert words in log
    assert log.count("Traceback") >= 5


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_policy_that_never_returns_is_bounded_and_holds_up_nobody_else(shows, path) -> None:
    program, client = shows(FAILING, path=path)
    other = Client(program.mountpoint, program)
    began = time.monotonic()
    client.begin("content('failing/never')")
    assert other.value("content('fine')") == b"fine"
    if path != "naive":  # there the kernel admits one client at a time into a directory
        assert other.value("content('failing/else')") == b"fine"
    assert time.monotonic() - began < 2
    assert client.finish() == ("errno", "ETIMEDOUT")
    assert client.outcome("content('endless')") == "ETIMEDOUT"
    assert "no answer within 2 s" in program.log()
    other.close()


def test_computed_bytes_are_made_for_each_read(shows) -> None:
    program, client = shows("""
calls = []
async def made(offset, size):
    calls.append((offset, size))
    await trio.lowlevel.checkpoint()
    return bytes(n % 251 for n in range(offset, offset + size))

tree = Dir({"made": Computed(1_000_000, made, mode=0o440)})
""")
    wanted = bytes(n % 251 for n in range(1_000_000))
    assert client.value("content('made')") == wanted
    assert client.value("os.pread(opened('made'), 1000, 999_990)") == wanted[999_990:]
    assert client.value("os.pread(opened('made'), 1000, 1_000_000)") == b""
    assert client.value("attributes('made')['mode']") == 0o100440
    assert all(size > 0 and at + size <= 1_000_000 for at, size in program.run("return calls"))
    assert client.outcome("by_mmap('made', [(0, 10)])") == "ENODEV"


PATHS = """
class Choosing(Dir):
    async def lookup(self, name, who):
        return File(where, path=None if name == "none" else name)

tree = Dir({"by": Choosing()})
options = MountOptions(transport="dev")  # a ring has one path
"""


@pytest.mark.parametrize("path", ["upcall", "pool", "mmap", "splice", PASSTHROUGH])
def test_a_policy_forces_the_serving_path_of_a_file(shows, tmp_path, path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 500_000)
    program, client = shows(PATHS, where=str(tmp_path / "data"))
    assert client.value(f"content('by/{path}')") == b"x" * 500_000
    counted = program.statistics()["datapath"]
    served = {name for name, counts in counted["paths"].items() if counts["requests"]}
    assert served == (set() if path == "passthrough" else {path})
    mode = path if path in ("passthrough", "upcall") else "cached"
    assert counted["opens"] == {mode: 1}


@requires("passthrough")
def test_files_by_different_paths_are_open_at_once(shows, tmp_path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 500_000)
    _, client = shows(PATHS, where=str(tmp_path / "data"))
    client.value(
        "globals().update(fds=[opened('by/' + name) for name in"
        " ('pool', 'passthrough', 'upcall', 'none', 'mmap', 'auto')])"
    )
    assert client.value("{os.pread(fd, 1 << 20, 0) for fd in fds}") == {b"x" * 500_000}


def test_a_directory_made_on_demand_may_be_cached_and_have_the_kernel_ask_again(shows) -> None:
    program, client = shows("""
class Demand(Dir):
    volatile = False
    asked = []
    content = b"old"

    async def lookup(self, name, who):
        self.asked.append(name)
        return Bytes(self.content)

    async def list(self, who):
        return {f"{n}": Bytes(self.content) for n in range(1000)}

tree = Dir({"demand": Demand()})
options = MountOptions(cache_timeout=1000)
""")
    for _ in range(3):
        assert client.value("content('demand/name')") == b"old"
    assert program.run("return Demand.asked") == ["name"]
    program.run("Demand.content = b'new'; tree['demand'].changed('name'); await served.notified()")
    assert client.value("content('demand/name')") == b"new"
    assert client.value("len(os.listdir(p('demand')))") == 1000
    assert program.run("return Demand.asked") == ["name", "name"]


@pytest.mark.parametrize("path", ["auto", "splice"])
def test_an_immutable_mount_keeps_nothing_that_a_policy_said(shows, tmp_path, path) -> None:
    (tmp_path / "file").write_bytes(b"in a mirror")
    program, client = shows(
        """
class Counting(Dir):
    count = 0

    async def lookup(self, name, who):
        self.count += 1
        return Bytes(b"%d" % self.count)

    async def list(self, who):
        return {f"{self.count}": Bytes(b"")}

tree = Dir({"asked": Counting(), "fixed": Bytes(b"old"), "mirror": Mirror(where)})
options = MountOptions(path=path, immutable=True)
""",
        where=str(tmp_path),
        path=path,
    )
    # Each open asks, and asks again if the answer is another file.
    found = [int(client.value("content('asked/name')")) for _ in range(3)]
    assert found == sorted(set(found))
    assert client.value("os.listdir(p('asked'))") == [b"%d" % found[-1]]
    assert client.value("content('mirror/file')") == b"in a mirror"
    assert client.value("os.listdir(p('mirror'))") != []
    assert client.value("content('fixed')") == b"old"
    program.run("tree.replace('fixed', Bytes(b'new')); await served.notified()")
    assert client.value("content('fixed')") == b"new"
    assert int(client.value("content('asked/name')")) > found[-1]
