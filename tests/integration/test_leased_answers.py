"""Leased answers of a policy: the data path gives them, until they end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.client import Client
from tests.integration.conftest import Shows, shown_side_by_side
from tests.integration.counts import eventually
from tests.integration.program import Program
from tests.integration.test_random_trees import examples
from tests.support import requires

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

OTHER_UID: Final = 54321
# Tests put what a name means into `meanings`, and may replace `meaning` and `names`.
POLICY: Final = """
asked = []
meanings = {}

def meaning(name, who):
    return meanings[name](who) if name in meanings else None

def names(who):
    return list(meanings)

class Policy(Dir):
    leases = True
    async def lookup(self, name, who):
        asked.append((name, who.uid))
        return meaning(name, who)
    async def list(self, who):
        asked.append(("list", who.uid))
        return names(who)

"""


def upcalls(program: Program) -> dict[str, int]:
    """What Python was asked, without the kernel's FORGETs of nodes that Python made."""
    counted = program.statistics()["datapath"]["upcalls"]
    return {name: count for name, count in counted.items() if "FORGET" not in name}


def test_an_answer_for_everyone_costs_one_call_of_the_policy(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
meanings.update({{f"n{{n}}": lambda who, n=n: Leased(File(f"{{where}}/{{n}}"), for_everyone=True)
                 for n in range(100)}})
meanings["below"] = lambda who: Leased(Dir({{"a": Bytes(b"aa")}}, key=1), for_everyone=True)
meanings["link"] = lambda who: Leased(Symlink("n1"), for_everyone=True)
tree = Dir({{"policy": Policy()}})
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    look = "[os.stat(p(f'policy/n{n}')).st_size for n in range(100)]"
    sizes = client.value(look)
    assert client.value("os.readlink(p('policy/link')), content('policy/below/a')") == (
        b"n1",
        b"aa",
    )
    inodes = client.value("[os.stat(p(f'policy/n{n}')).st_ino for n in range(100)]")
    before = upcalls(program)
    assert client.value(look) == sizes
    read = client.value("[content(f'policy/n{n}') for n in range(100)]")
    assert read == [b"%d" % n * 10 for n in range(100)]
    assert client.value("os.readlink(p('policy/link')), content('policy/below/a')") == (
        b"n1",
        b"aa",
    )
    assert client.value("os.lstat(p('policy')).st_nlink") == 1
    assert upcalls(program) == before
    assert client.value("[os.stat(p(f'policy/n{n}')).st_ino for n in range(100)]") == inodes
    assert len(program.run("return asked")) == 102
    assert client.outcome("os.stat(p('policy/missing'))") == "ENOENT"
    assert len(client.value("os.listdir(p('policy'))")) == 102
    assert len(program.run("return asked")) == 104


def test_the_first_answer_and_the_later_ones_are_one_inode(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
meanings["a"] = lambda who: Leased(File(where + "/7"), for_everyone=True)
tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    _, client = shows(source, where=where)
    first = client.value("os.fstat(opened('a')).st_ino")
    assert client.value("os.stat(p('a')).st_ino") == first


def test_an_answer_ends_when_its_time_is_over(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
meanings["a"] = lambda who: Leased(Bytes(b"%d" % len(asked)), valid_for=0.2, for_everyone=True)
tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    _, client = shows(source, where=where)
    assert client.value("content('a')") == b"1"
    assert eventually(lambda: client.outcome("content('a')") not in (b"1", "ESTALE"))


def test_changed_ends_an_answer_at_once(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
version = [1]
meanings["a"] = lambda who: Leased(Bytes(b"version %d" % version[0]), for_everyone=True)
tree = Policy()
options = MountOptions(cache_timeout=60)
"""
    program, client = shows(source, where=where)
    for version in range(1, 4):
        assert client.value("content('a'), content('a')") == (b"version %d" % version,) * 2
        assert len(program.run("return asked")) == version
        program.run("version[0] += 1; tree.changed('a'); await served.notified()")
    program.run("del meanings['a']; tree.changed('a'); await served.notified()")
    assert client.outcome("content('a')") == "ENOENT"


def test_an_answer_that_was_overtaken_by_a_change_is_not_leased(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
def meaning(name, who):
    if len(asked) == 1:
        tree.changed(name)
    return Leased(Bytes(b"%d" % len(asked)), for_everyone=True)

tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    _, client = shows(source, where=where)
    client.outcome("content('a')")
    assert client.value("content('a')") == b"2"
    assert client.value("content('a')") == b"2"


@requires("root")
def test_another_user_gets_another_answer(public: str, shows: Shows) -> None:
    source = f"""{POLICY}
meanings["mine"] = lambda who: Leased(Bytes(b"for %d" % who.uid))
meanings["ours"] = lambda who: Leased(Bytes(b"from %d" % who.uid), for_everyone=True)
tree = Policy()
options = MountOptions(cache_timeout=60, allow_other=True)
"""
    program, client = shows(source, at=f"{public}/mnt")
    other = Client(program.mountpoint, program, uid=OTHER_UID)
    try:
        for _ in range(2):
            assert client.value("content('mine')") == b"for 0"
            assert other.value("content('mine')") == b"for %d" % OTHER_UID
            assert client.value("content('ours')") == other.value("content('ours')") == b"from 0"
        asked = program.run("return asked")
        assert sorted(asked) == [("mine", 0), ("mine", OTHER_UID), ("ours", 0)]
    finally:
        other.close()


def test_a_leased_missing_name_costs_one_call_of_the_policy(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
def meaning(name, who):
    return Leased(None, for_everyone=True)

tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    assert client.outcome("os.stat(p('absent'))") == "ENOENT"
    before = upcalls(program)
    for _ in range(3):
        assert client.outcome("os.stat(p('absent'))") == "ENOENT"
    assert upcalls(program) == before
    assert len(program.run("return asked")) == 1


def test_changed_ends_the_lease_of_a_missing_name(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
def meaning(name, who):
    return Leased(meanings.get(name), for_everyone=True)

tree = Policy()
options = MountOptions(cache_timeout=60)
"""
    program, client = shows(source, where=where)
    for content in (b"one", b"two"):
        assert client.outcome("content('a')") == "ENOENT"
        program.run(
            f"meanings['a'] = Bytes({content!r}); tree.changed('a'); await served.notified()"
        )
        assert client.value("content('a'), content('a')") == (content, content)
        program.run("meanings.clear(); tree.changed('a'); await served.notified()")


@pytest.mark.parametrize("listed", ["meanings", "list(meanings)"])
def test_a_leased_listing_is_walked_without_a_call_of_the_policy(
    listed: str, shows: Shows, where: str
) -> None:
    source = f"""{POLICY}
meanings.update({{f"n{{n}}": File(f"{{where}}/{{n}}") for n in range(50)}})

def meaning(name, who):
    return Leased(meanings.get(name), for_everyone=True)

def names(who):
    return LeasedNames({listed}, for_everyone=True, complete=True)

meanings["deep"] = Policy(key=1)
meanings["python"] = Mirror(where)
tree = Dir({{"policy": Policy()}})
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    walk = """sorted((e.name, e.inode(), e.stat(follow_symlinks=False).st_ino, e.is_dir())
                     for d in ('policy', 'policy/deep', 'policy/deep/deep')
                     for e in os.scandir(p(d)) if e.name != b'python')"""
    client.value(walk)
    first = client.value(walk)
    assert len(first) == 3 * 51
    assert all(inode == shown for _, inode, shown, _ in first)
    before, asked = upcalls(program), program.run("return len(asked)")
    assert client.value(walk) == first
    assert client.outcome("os.stat(p('policy/deep/absent'))") == "ENOENT"
    assert client.value("content('policy/deep/n7')") == b"7" * 10
    assert upcalls(program) == before
    assert program.run("return len(asked)") == asked
    assert client.value("len(os.listdir(p('policy/python')))") > 0


@pytest.mark.parametrize("changed", [["a", "b"], ["b", "c", "d"], []])
def test_changed_ends_a_leased_listing_at_once(
    changed: list[str], shows: Shows, where: str
) -> None:
    source = f"""{POLICY}
shown = ["a"]

def meaning(name, who):
    return Leased(Bytes(b"x") if name in shown else None, for_everyone=True)

def names(who):
    return LeasedNames(shown, for_everyone=True, complete=True)

tree = Policy()
options = MountOptions(cache_timeout=60)
"""
    program, client = shows(source, where=where)
    for _ in range(2):
        assert client.value("sorted(os.listdir(p('')))") == [b"a"]
    for change in (f"shown[:] = {changed}", "shown[:] = ['a']"):
        program.run(
            f"old = set(shown); {change}; tree.changed(*old, *shown); await served.notified()"
        )
        expected = sorted(name.encode() for name in program.run("return shown"))
        for _ in range(2):
            assert client.value("sorted(os.listdir(p('')))") == expected
            assert client.outcome("content('a')") == (b"x" if b"a" in expected else "ENOENT")


def test_a_leased_listing_ends_when_its_time_is_over(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
def names(who):
    return LeasedNames({{f"n{{len(asked)}}": Bytes(b"")}}, valid_for=0.3, for_everyone=True)

tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    assert client.value("os.listdir(p('')), os.listdir(p(''))") == ([b"n1"], [b"n1"])
    assert eventually(lambda: client.value("os.listdir(p(''))") != [b"n1"])
    assert len(program.run("return asked")) >= 2


def test_changed_without_names_ends_listings_alone(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
def meaning(name, who):
    return Leased(Bytes(b"x"), for_everyone=True)

def names(who):
    return LeasedNames(["a"], for_everyone=True)

tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    client.value("os.listdir(p('')), content('a'), os.listdir(p(''))")
    asked = "return [name for name, _ in asked]"
    assert program.run(asked) == ["list", "a"]
    program.run("tree.changed()")
    client.value("os.listdir(p('')), content('a'), os.listdir(p(''))")
    assert program.run(asked) == ["list", "a", "list"]


@requires("root")
def test_answers_for_single_users_cost_no_upcall(public: str, shows: Shows) -> None:
    source = f"""{POLICY}
meanings["absent"] = lambda who: Leased(None)
meanings["home"] = lambda who: Leased(
    Dir({{"of": Bytes(b"%d" % who.uid), "in": Dir({{"x": Zeros(who.uid % 9)}})}}))
meanings["same"] = lambda who: Leased(Bytes(b"same"))
meanings["mine"] = lambda who: Leased(Bytes(b"for %d" % who.uid))

def names(who):
    return LeasedNames(["home", "mine", "same", f"of{{who.uid}}"])

tree = Dir({{"policy": Policy()}})
options = MountOptions(cache_timeout=60, allow_other=True)
"""
    program, client = shows(source, at=f"{public}/mnt")
    other = Client(program.mountpoint, program, uid=OTHER_UID)
    look = """(
        content('policy/mine'), content('policy/home/of'), os.stat(p('policy/home/in/x')).st_size,
        content('policy/same'), os.listdir(p('policy')), outcome(p('policy/absent')))"""
    helper = """
def outcome(path):
    try:
        return os.stat(path)
    except OSError as error:
        return errno.errorcode[error.errno]
"""
    try:
        for one in (client, other):
            one.value(f"exec({helper!r}, globals())")
            one.value(look)
        before, asked = upcalls(program), len(program.run("return asked"))
        for _ in range(3):
            for one, uid in ((client, 0), (other, OTHER_UID)):
                found = one.value(look)
                assert found[:4] == (b"for %d" % uid, b"%d" % uid, uid % 9, b"same")
                assert sorted(found[4]) == [b"home", b"mine", b"same"]
                assert found[5] == "ENOENT"
        assert upcalls(program) == before
        assert len(program.run("return asked")) == asked
        same = "os.stat(p('policy/same')).st_ino"
        assert client.value(same) == other.value(same)
        program.run("tree['policy'].changed('home', 'mine'); await served.notified()")
        assert client.value("content('policy/mine')") == b"for 0"
        assert other.value("content('policy/home/of')") == b"%d" % OTHER_UID
    finally:
        other.close()


@requires("root")
@pytest.mark.parametrize(
    ("homes", "rename"),
    [
        (("home", "home"), {}),
        (("home.old", "home.old"), {"*.old": "*"}),
        (("home.old", "home"), {"*.old": "*"}),
    ],
    ids=["hidden", "renamed", "renamed-for-one"],
)
def test_each_user_gets_its_own_answers_through_a_filter_too(
    public: str, shows: Shows, homes: tuple[str, str], rename: dict[str, str]
) -> None:
    source = f"""{POLICY}
def meaning(name, who):
    if name == homes[who.uid != 0]:
        return Leased(Dir({{"of": Bytes(b"%d" % who.uid), "a.tmp": Bytes(b"")}}))
    return Leased(Bytes(b"for %d" % who.uid) if name == "mine" else None)

def names(who):
    return LeasedNames([homes[who.uid != 0], "mine", f"{{who.uid}}.tmp"])

home = Policy()
tree = Filter(Dir({{"policy": home}}), hide=["*.tmp"], rename=renamed)
options = MountOptions(cache_timeout=60, allow_other=True)
"""
    program, client = shows(source, at=f"{public}/mnt", homes=homes, renamed=rename)
    other = Client(program.mountpoint, program, uid=OTHER_UID)
    look = """(content('policy/mine'), content('policy/home/of'), sorted(os.listdir(p('policy'))),
               os.listdir(p('policy/home')))"""
    try:
        for _ in range(3):
            for one, uid in ((client, 0), (other, OTHER_UID)):
                assert one.value(look) == (
                    b"for %d" % uid,
                    b"%d" % uid,
                    [b"home", b"mine"],
                    [b"of"],
                )
                assert one.outcome(f"os.stat(p('policy/{uid}.tmp'))") == "ENOENT"
            program.run("home.changed('mine'); await served.notified()")
        for one in (client, other):
            one.value(look)
        before = upcalls(program)
        for one in (client, other):
            assert one.value("content('policy/home/of')") == b"%d" % (
                0 if one is client else OTHER_UID
            )
            one.value("os.listdir(p('policy/home'))")
        assert upcalls(program) == before
    finally:
        other.close()


def test_what_only_python_can_serve_is_leased_by_python(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
async def made(offset, size):
    return b"c" * size
meanings["computed"] = lambda who: Leased(Computed(5, made), for_everyone=True)
meanings["mirror"] = lambda who: Leased(shown, for_everyone=True)
shown = Mirror(where)
tree = Policy()
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    for _ in range(2):
        assert client.value("content('computed'), content('mirror/7')") == (b"ccccc", b"7" * 10)
    assert len(program.run("return asked")) == 2


def test_a_lease_of_a_class_that_announces_none_is_refused(shows: Shows, where: str) -> None:
    source = """
class Policy(Dir):
    async def lookup(self, name, who):
        return Leased(Bytes(b"x"))

tree = Policy()
"""
    program, client = shows(source, where=where)
    assert client.outcome("content('a')") == "EIO"
    assert "set leases = True" in program.log()


def test_after_a_revoke_python_gives_the_answer(shows: Shows, where: str) -> None:
    source = f"""{POLICY}
meanings["a"] = lambda who: Leased(Bytes(b"a"), for_everyone=True)
tree = Dir({{"policy": Policy()}})
options = MountOptions(cache_timeout=0)
"""
    program, client = shows(source, where=where)
    assert client.value("content('policy/a'), content('policy/a')") == (b"a", b"a")
    program.run("served.revoke_lease()")
    assert client.value("content('policy/a')") == b"a"
    assert client.value("os.listdir(p('policy'))") == [b"a"]


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[Program, Client]]]:
    """The same policy twice: with leased answers, and asked each time."""
    sources = [
        f"""
meanings = {{}}

class Policy(Dir):
    leases = {leases}
    async def lookup(self, name, who):
        found = meanings.get(name)
        return Leased(found, for_everyone=ord(name[0]) % 3 != 0) if {leases} else found
    async def list(self, who):
        names = sorted(meanings)
        if len(names) == 2:
            names = {{name: meanings[name] for name in names}}
        whom = len(names) % 2 == 0
        return LeasedNames(names, for_everyone=whom, complete=True) if {leases} else names

tree = Dir({{"policy": Policy(key=1)}})
options = MountOptions(cache_timeout=60)
"""
        for leases in (True, False)
    ]
    with shown_side_by_side(tmp_path_factory, sources) as shown:
        yield shown


MEANINGS: Final = st.sampled_from(
    [
        "Bytes(b'x')",
        "Bytes(b'yy', mode=0o600)",
        "Zeros(9)",
        "Symlink('z')",
        "Concat(['/etc/passwd'])",
        "Dir({'in': Bytes(b'i'), 'sub': Dir({'deep': Zeros(3)}, key=2)}, key=3)",
        "None",
    ]
)
STEPS: Final = st.lists(st.tuples(st.sampled_from("abc"), MEANINGS), min_size=1, max_size=8)
SEEN: Final = """[(one, outcome(one)) for one in
                ('a', 'b', 'c', 'a/in', 'b/sub/deep', 'c/sub', 'a/none', '', 'd')]"""
OUTCOME: Final = """
def outcome(name):
    try:
        found = os.lstat(p('policy/' + name))
        if stat.S_ISREG(found.st_mode):
            return found.st_mode, found.st_size, content('policy/' + name)
        if stat.S_ISLNK(found.st_mode):
            return found.st_mode, os.readlink(p('policy/' + name))
        return found.st_mode, found.st_nlink, sorted(os.listdir(p('policy/' + name)))
    except OSError as error:
        return errno.errorcode[error.errno]
"""


@examples(25)
@given(steps=STEPS)
def test_leased_answers_are_the_answers_of_the_policy(
    both: list[tuple[Program, Client]], steps: list[tuple[str, str]]
) -> None:
    for _, client in both:
        client.value(f"exec({OUTCOME!r}, globals())")
    for name, meaning in [*steps, *((name, "None") for name in "abc")]:
        seen: list[Any] = []
        for program, client in both:
            program.run(
                f"meanings.pop({name!r}, None)\nfound = {meaning}\n"
                f"if found is not None: meanings[{name!r}] = found\n"
                f"tree['policy'].changed({name!r}); await served.notified()"
            )
            seen.append((client.value(SEEN), client.value(SEEN)))
        assert seen[0] == seen[1]
