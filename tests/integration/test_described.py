"""A `Dir` that the data path answers for shows what Python shows, and costs no upcall."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.integration.client import Client
from tests.integration.conftest import Shows, shown_side_by_side
from tests.integration.program import Program
from tests.integration.test_random_trees import BLOBS, NAMES, examples, source_of
from tests.support import let_pass, requires

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

FILES: Final = 5
_NUMBERS: Final = itertools.count()

# All that a client can see of a tree but the inode numbers, which depend on who answers, and the
# times that each program gave its entries.
DUMP: Final = """
def seen(name):
    try:
        found = os.lstat(p(name))
    except OSError as error:
        return errno.errorcode[error.errno]
    shown = [found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_size,
             found.st_blocks, found.st_blksize]
    if stat.S_ISDIR(found.st_mode):
        with os.scandir(p(name)) as entries:
            listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        return shown, [(one, seen(os.path.join(os.fsencode(name), one[0]))) for one in listed]
    try:
        acl = os.getxattr(p(name), 'system.posix_acl_access', follow_symlinks=False)
    except OSError as error:
        acl = errno.errorcode[error.errno]
    if stat.S_ISLNK(found.st_mode):
        return shown, acl, os.readlink(p(name))
    if not stat.S_ISREG(found.st_mode):
        return shown, acl
    try:
        return shown, acl, found.st_mtime_ns // dated(found), digest(content(name))
    except OSError as error:
        return shown, acl, errno.errorcode[error.errno]

def dated(found):
    return 1 if found.st_mtime_ns < 10**18 else 10**30
"""

PROGRAM: Final = """
async def made(offset, size):
    return bytes(n % 251 for n in range(offset, offset + size))

tree = Dir({"computed": Computed(10, made), "mirror": Mirror(where), "sub": Dir(), "aside": Dir()})
options = MountOptions(cache_timeout=0, directory_lease=leased)
"""


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[tuple[Program, Client]], Path]]:
    """The same tree twice, answered by the data path and by Python, over the same files."""
    where = tmp_path_factory.mktemp("where")
    sources = [f"where = {str(where)!r}\nleased = {leased}\n{PROGRAM}" for leased in (True, False)]
    with shown_side_by_side(tmp_path_factory, sources, DUMP) as shown:
        yield shown, where


GIVEN: Final = st.sampled_from(
    ["", ", mode=0o640", ", uid=7, gid=8", ", mtime=5.5", ", path='upcall'", ", path='pool'"]
)
ENTRIES: Final = st.one_of(
    st.tuples(st.just("blob"), BLOBS, GIVEN),
    st.tuples(st.just("text"), st.sampled_from(["Symlink('a/b')", "Computed(9, made)", "Dir()"])),
    st.tuples(st.just("below"), st.dictionaries(NAMES, BLOBS, max_size=3)),
)
_CHANGES: Final = st.one_of(
    st.tuples(st.sampled_from(["put", "put", "put below"]), st.integers(0, 3), ENTRIES),
    st.tuples(st.sampled_from(["remove", "remove below"]), st.integers(0, 3)),
    st.tuples(
        st.sampled_from(["write", "renew", "delete", "link", "chmod", "fifo"]),
        st.integers(0, FILES - 1),
    ),
)


def program_of(change: tuple[Any, ...], where: Path) -> str:
    """The change of the tree in the program's words; "" where it is one of the files."""
    what, number, *rest = change
    directory = "tree['sub']" if what.endswith("below") else "tree"
    if what.startswith("remove"):
        return f"if 'n{number}' in {directory}: {directory}.remove('n{number}')"
    kind, entry, *given_by = rest[0]
    if kind == "blob":
        made = source_of(entry, where, [])
        made = f"{made[:-1]}{given_by[0]})"
    elif kind == "below":
        inner = (f"{name!r}: {source_of(one, where, [])}" for name, one in entry.items())
        made = f"Dir({{{', '.join(inner)}}})"
    else:
        made = entry
    return f"{directory}.replace('n{number}', {made})"


def change_file(what: str, path: Path) -> None:
    """Change a file behind the entries; its new time is one that no clock gives."""
    times = (10**17 + next(_NUMBERS), 10**17 + next(_NUMBERS))
    if what == "chmod" and path.is_file():
        path.chmod(0o400 + next(_NUMBERS) % 64)
        return
    if what == "write" and path.is_file():
        with path.open("r+b") as file:
            file.truncate(next(_NUMBERS) * 7919 % 10_000)
    else:
        path.unlink(missing_ok=True)
        if what == "link":
            path.symlink_to(path.parent / str((int(path.name) + 1) % FILES))
        elif what == "fifo":
            os.mkfifo(path)
        elif what in ("renew", "write"):
            path.write_bytes(bytes(next(_NUMBERS) * 7919 % 10_000))
    if path.is_file() and not path.is_symlink():
        # While ext4 allocates blocks that it has delayed, st_blocks is 0 for a moment.
        with path.open("rb") as file:
            os.fsync(file.fileno())
        os.utime(path, ns=times)


def differences(one: Any, other: Any) -> list[tuple[Any, Any]]:
    """The parts of two dumps that differ, as small as they can be told apart."""
    if one == other:
        return []
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [found for pair in zip(one, other, strict=True) for found in differences(*pair)]
    return [(one, other)]


def looked_at(shown: list[tuple[Program, Client]]) -> list[tuple[Any, Any]]:
    """Dump both trees and return their differences."""
    described, asked = (client.value("seen('')") for _, client in shown)
    return differences(described, asked)


# A name that cannot be shown stays in the listing.
@example([("put", 0, ("blob", ("file", 4), "")), ("fifo", 4)])
@examples(30)
@given(changes=st.lists(_CHANGES, min_size=1, max_size=8))
def test_a_directory_by_value_is_the_directory_by_upcall_while_it_changes(
    both: tuple[list[tuple[Program, Client]], Path], changes: list[tuple[Any, ...]]
) -> None:
    shown, where = both
    for number in range(FILES):
        change_file("renew", where / str(number))
    for change in changes:
        if change[0] in ("write", "renew", "delete", "link", "chmod", "fifo"):
            change_file(change[0], where / str(change[1]))
        else:
            for program, _ in shown:
                program.run(f"{program_of(change, where)}\nawait served.notified()")
        if found := looked_at(shown):
            # One dump came after the other, and ext4 changes st_blocks when it writes data back.
            let_pass(0.2)
            found = looked_at(shown)
        assert found == []
    for program, _ in shown:
        program.run(
            "for one in (tree, tree['sub']):\n"
            "    for name in [name for name in one if name[0] == 'n']: one.remove(name)\n"
            "await served.notified()"
        )


MANY: Final = """
tree = Dir({f"{n // 100:02}": Dir({f"{m}": File(f"{where}/{m % 100}") for m in range(n, n + 100)})
            for n in range(0, 5000, 100)})
tree.add("parts", Dir({f"{n}": Concat([f"{where}/{n}", Slice(f"{where}/0", 1, 2)])
                       for n in range(100)}))
tree.add("link", Symlink("parts/1"))
options = MountOptions(cache_timeout=60)
"""


def test_a_walk_and_two_reads_of_5000_entries_cost_no_upcall(shows: Shows, where: str) -> None:
    program, client = shows(MANY, where=where)
    before = program.statistics()["datapath"]["upcalls"]
    walk = "sum(len(names) for _, _, names in os.walk(p()))"
    assert client.value(walk) == 5101
    read = "sum(len(content(f'{n // 100:02}/{n}')) for n in range(5000))"
    assert (
        client.value(read, 120)
        == client.value(read, 120)
        == 50 * sum(len(str(number) * 10) for number in range(100))
    )
    assert client.value("content('parts/7')") == b"7" * 10 + b"0" * 2
    assert client.value("os.readlink(p('link')), os.statvfs(p()).f_namemax") == (b"parts/1", 255)
    assert client.value("os.listxattr(p('parts/7')), os.access(p('parts/7'), os.W_OK)") is not None
    after = program.statistics()["datapath"]
    assert after["upcalls"] == before
    assert after["directories"]["entries"] == 5000 + 50 + 100 + 3


def test_a_million_entries_take_less_than_120_bytes_each(shows: Shows, where: str) -> None:
    """And Python keeps no object for each that came from a path."""
    many = """
import sys
before = sys.getallocatedblocks()
tree = Dir.from_paths({f"a/{n:08}.jpg": f"{where}/{n:08}.jpg" for n in range(200_000)})
"""
    program, client = shows(many, where=where)
    found = program.statistics()["datapath"]["directories"]
    assert found["entries"] == 200_002
    assert found["entry_bytes"] < 120 * found["entries"]
    blocks = program.run("import gc; gc.collect(); return sys.getallocatedblocks() - before")
    assert blocks < found["entries"] / 4
    assert client.value("len(os.listdir(p('a')))", 60) == 0  # the files do not exist


def test_entries_of_packed_paths_change_while_they_are_mounted(shows: Shows, where: str) -> None:
    program, client = shows(
        "tree = Dir.from_paths({f'a/{n}': f'{where}/{n % 100}' for n in range(1000)})",
        where=where,
    )
    assert client.value("content('a/777')") == b"77" * 10
    program.run(
        "tree['a'].remove('777'); tree['a'].replace('778', Bytes(b'made'))\n"
        "tree['a'].add('new', File(where + '/5')); await served.move('a/779', where + '/78')\n"
        "await served.notified()"
    )
    assert client.outcome("os.stat(p('a/777'))") == "ENOENT"
    found = client.value("[content(f'a/{name}') for name in (778, 779, 780, 'new')]")
    assert found == [b"made", b"78" * 10, b"80" * 10, b"5" * 10]
    assert client.value("len(os.listdir(p('a')))") == 1000
    program.run("served.revoke_lease()")  # Python answers from the same entries
    assert client.value("len(os.listdir(p('a'))), content('a/12')") == (1000, b"12" * 10)
    assert client.outcome("os.stat(p('a/777'))") == "ENOENT"


def test_a_file_that_is_open_stays_what_it_was(shows: Shows, where: str) -> None:
    program, client = shows(MANY, where=where)
    client.value("globals().update(fd=opened('00/7'), ino=os.stat(p('00/7')).st_ino)")
    assert client.value("os.fstat(fd).st_ino == ino")
    program.run("tree['00'].replace('7', Bytes(b'another')); await served.notified()")
    assert client.value("content('00/7')") == b"another"
    assert client.value("os.stat(p('00/7')).st_ino != ino")
    program.run("tree.remove('00'); await served.notified()")
    assert client.value("os.pread(fd, 100, 0), os.fstat(fd).st_size") == (b"7" * 10, 10)
    assert client.outcome("os.stat(p('00'))") == "ENOENT"
    assert program.statistics()["datapath"]["directories"]["entries"] == 5153 - 101
    client.value("os.close(fd)")


def test_another_file_behind_a_name_is_another_node(shows: Shows, where: str) -> None:
    source = "tree = Dir({'file': File(where + '/7')}); options = MountOptions(cache_timeout=0)"
    _, client = shows(source, where=where)
    client.value("globals().update(fd=opened('file'), ino=os.stat(p('file')).st_ino)")
    renewed = Path(where, "renewed")
    renewed.write_bytes(b"renewed")
    os.rename(renewed, Path(where, "7"))
    assert client.value("content('file')") == b"renewed"
    assert client.value("os.stat(p('file')).st_ino != ino")
    assert client.value("os.pread(fd, 100, 0)") == b"7" * 10


def test_a_path_that_leads_into_the_mount_is_refused(shows: Shows, where: str, mountpoint) -> None:
    os.symlink(mountpoint, Path(where, "inside"))
    source = """
tree = Dir({"direct": File(mountpoint + "/file"), "linked": File(where + "/inside/file"),
            "file": File(where + "/7")})
"""
    _, client = shows(source, where=where, mountpoint=os.path.realpath(mountpoint))
    assert client.value("os.listdir(p())") == [b"file"]
    assert client.outcome("os.stat(p('direct'))") == "ELOOP"
    assert client.outcome("os.stat(p('linked'))") == "ELOOP"


def test_entries_that_python_answers_for_stand_beside_the_others(shows: Shows, where: str) -> None:
    source = """
async def made(offset, size):
    return b"c" * size

class Policy(Dir):
    async def lookup(self, name, who):
        return Bytes(name.encode())
    async def list(self, who):
        return ["x"]

tree = Dir({"computed": Computed(5, made), "policy": Policy(), "mirror": Mirror(where),
            "sub": Dir({"computed": Computed(6, made), "file": File(where + "/7")})})
"""
    program, client = shows(source, where=where)
    kinds = "{entry.name: entry.is_dir() for entry in os.scandir(p())}"
    assert client.value(kinds) == {
        b"computed": False, b"policy": True, b"mirror": True, b"sub": True,
    }  # fmt: skip
    assert client.value("content('computed'), content('sub/computed')") == (b"ccccc", b"cccccc")
    assert client.value("os.listdir(p('policy')), content('policy/y')") == ([b"x"], b"y")
    assert client.value("content('mirror/7')") == client.value("content('sub/file')")
    assert client.value("os.stat(p()).st_nlink, os.stat(p('sub')).st_nlink") == (5, 2)
    program.run("tree['sub'].add('late', Computed(2, made)); await served.notified()")
    assert client.value("content('sub/late')") == b"cc"
    assert stat.S_ISREG(client.value("os.stat(p('sub/late')).st_mode"))


def test_a_revoke_has_python_answer_for_all(shows: Shows, where: str) -> None:
    program, client = shows(MANY, where=where)
    assert client.value("content('00/7')") == b"7" * 10
    program.run("served.revoke_lease()")
    assert client.value("content('00/8'), content('parts/7')") == (b"8" * 10, b"7" * 10 + b"0" * 2)
    program.run("tree['00'].remove('8'); await served.notified()")
    assert client.outcome("content('00/8')") == "ENOENT"
    assert program.statistics()["control"]["upcalls"]["lookup"] > 0
