"""A pool: directories shown as one, where a program places new files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.layers import kills
from tests.support import Daemon, requires
from zcfuse import Pool

pytestmark = requires("mounting", "root")

AT_FDCWD = -100
RENAME_EXCHANGE = 2

# Text files go to "fast" by one question a file, others to "slow" by a lease; "no" is refused.
PROGRAM = """
import errno
from zcfuse import Placement, Pool

def place(name, who, hint):
    with open({log!r}, "a") as log:
        print(name, who.uid, oct(hint.mode), hint.text, file=log)
    if name.endswith("/no"):
        raise OSError(errno.EDQUOT, "no")
    if name.endswith(".txt"):
        return Placement({fast!r})
    return Placement({slow!r}, leased=True)

tree = Pool([{fast!r}, {slow!r}], place, refuse={refuse!r})
"""
# Names that end in "keep" are refused, changes in directories that end in "free" are leased.
ASKING = """
import os

def may_change(change, name, who):
    with open({log!r}, "a") as log:
        print(change, name, who.uid, file=log)
    if name.endswith("keep"):
        raise OSError(errno.EPERM, "kept")
    return 60.0 if os.path.dirname(name).endswith("free") else None

tree = Pool([{fast!r}, {slow!r}], lambda *_: Placement({slow!r}, leased=True),
            may_change=may_change)
"""


class Served:
    """A mounted pool with its branches."""

    def __init__(self, above: Path, root: Path) -> None:
        self.root = root
        self.fast, self.slow = above / "fast", above / "slow"
        self._log = above / "asked"

    def asked(self) -> list[str]:
        """Return the questions to the program so far."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@contextmanager
def mounted(above: Path, more: str = "", **refuse: int) -> Iterator[Served]:
    for name in ("fast", "slow", "mnt"):
        (above / name).mkdir(exist_ok=True)
    names = {name: str(above / name) for name in ("fast", "slow")}
    program = (PROGRAM + more).format(log=str(above / "asked"), refuse=refuse, **names)
    (above / "pool.py").write_text(program)
    options = ("--rw", "--allow-other")
    source, log = f"{above}/pool.py:tree", str(above / "log")
    daemon = Daemon(source, str(above / "mnt"), *options, log=log)
    try:
        yield Served(above, above / "mnt")
    finally:
        daemon.unmount()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with mounted(tmp_path) as found:
        yield found


def refused(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_an_archive_of_many_files_asks_the_program_once(served: Served, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    for number in range(200):
        (packed / str(number)).write_bytes(b"%d" % number)
    subprocess.run(["tar", "-cf", str(tmp_path / "a.tar"), "-C", str(packed), "."], check=True)
    into = served.root / "into"
    into.mkdir()
    unpack = ["tar", "-xf", str(tmp_path / "a.tar"), "-C", str(into)]
    subprocess.run(unpack, check=True, timeout=60)
    assert len(served.asked()) == 1
    assert kills.tree_of(served.slow / "into") == kills.tree_of(packed)


def test_a_new_file_lies_in_its_branch_with_its_changes(served: Served) -> None:
    (served.root / "d").mkdir()
    (served.root / "d").chmod(0o750)
    (served.root / "d" / "a.txt").write_bytes(b"one")
    with (served.root / "d" / "a.txt").open("ab") as file:
        file.write(b" two")
    os.chmod(served.root / "d" / "a.txt", 0o600)
    os.setxattr(served.root / "d" / "a.txt", "user.a", b"b")
    assert (served.fast / "d" / "a.txt").read_bytes() == b"one two"
    assert stat.S_IMODE((served.fast / "d").stat().st_mode) == 0o750
    assert os.getxattr(served.fast / "d" / "a.txt", "user.a") == b"b"
    assert not (served.slow / "d" / "a.txt").exists()
    assert served.asked() == ["d/a.txt 0 0o100666 "]


def test_a_directory_shows_the_names_of_all_branches_and_goes_in_all(served: Served) -> None:
    (served.root / "d").mkdir()
    for name in ("a.txt", "b"):
        (served.root / "d" / name).write_bytes(b"")
    assert sorted(os.listdir(served.root / "d")) == ["a.txt", "b"]
    assert refused(lambda: os.rmdir(served.root / "d")) == "ENOTEMPTY"
    for name in ("a.txt", "b"):
        (served.root / "d" / name).unlink()
    os.rmdir(served.root / "d")
    assert os.listdir(served.fast) == os.listdir(served.slow) == []


def test_a_rename_and_a_link_stay_in_the_branch_of_the_file(served: Served) -> None:
    (served.root / "a.txt").write_bytes(b"bytes")
    (served.root / "d" / "e").mkdir(parents=True)
    os.rename(served.root / "a.txt", served.root / "d" / "e" / "b")
    os.link(served.root / "d" / "e" / "b", served.root / "d" / "c")
    assert (served.fast / "d" / "e" / "b").read_bytes() == b"bytes"
    assert (served.fast / "d" / "c").stat().st_nlink == 2
    assert (served.root / "d" / "c").stat().st_ino == (served.root / "d" / "e" / "b").stat().st_ino
    assert len(served.asked()) == 1


def test_a_rename_replaces_a_file_of_another_branch(served: Served) -> None:
    (served.root / "a.txt").write_bytes(b"new")
    (served.root / "b").write_bytes(b"old")
    os.rename(served.root / "a.txt", served.root / "b")
    assert (served.root / "b").read_bytes() == b"new"
    assert os.listdir(served.root) == ["b"]
    assert os.listdir(served.slow) == []


def test_a_file_is_placed_under_the_new_name_of_its_directory(served: Served) -> None:
    (served.root / "old").mkdir()
    (served.root / "old" / "a.txt").write_bytes(b"one")
    os.rename(served.root / "old", served.root / "new")
    (served.root / "new" / "b.txt").write_bytes(b"two")
    assert sorted(os.listdir(served.fast / "new")) == ["a.txt", "b.txt"]
    assert [line.split()[0] for line in served.asked()] == ["old/a.txt", "new/b.txt"]


def test_a_directory_with_files_in_both_branches_is_renamed_in_both(served: Served) -> None:
    (served.root / "d").mkdir()
    for name in ("a.txt", "b"):
        (served.root / "d" / name).write_bytes(name.encode())
    with (served.root / "d" / "a.txt").open("rb") as held:
        os.rename(served.root / "d", served.root / "e")
        assert (served.root / "e" / "a.txt").read_bytes() == held.read() == b"a.txt"
    assert sorted(os.listdir(served.root / "e")) == ["a.txt", "b"]
    assert os.listdir(served.root) == ["e"]


@requires("ordinary user")
def test_a_user_makes_a_file_where_the_branch_has_an_earlier_owner_of_the_directory(
    served: Served,
) -> None:
    (served.root / "d").mkdir()
    (served.root / "d" / "a.txt").write_bytes(b"")
    os.chown(served.root / "d", 1234, 1234)
    os.chmod(served.root / "d", 0o700)
    command = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    subprocess.run([*command, "touch", "b.txt"], cwd=served.root / "d", check=True, timeout=60)
    status = (served.fast / "d").stat()
    assert (status.st_uid, status.st_gid, oct(status.st_mode)) == (1234, 1234, "0o40700")
    assert (served.fast / "d" / "b.txt").stat().st_uid == 1234


def test_the_program_refuses_a_file_with_its_errno(served: Served) -> None:
    (served.root / "d").mkdir()
    assert refused(lambda: (served.root / "d" / "no").touch()) == "EDQUOT"
    assert os.listdir(served.root / "d") == []


def test_the_hint_of_a_directory_reaches_the_program(served: Served) -> None:
    (served.root / "d").mkdir()
    os.setxattr(served.root / "d", "user.zcfuse.hint", b"4000000")
    os.symlink("x", served.root / "d" / "a.txt")
    assert served.asked() == ["d/a.txt 0 0o120777 4000000"]
    assert os.readlink(served.fast / "d" / "a.txt") == "x"


def test_what_a_pool_refuses_has_its_errno_and_new_files_are_written(tmp_path: Path) -> None:
    with mounted(tmp_path, remove=errno.EPERM, rename=errno.EPERM, write=errno.EROFS) as served:
        path = served.root / "a"
        path.write_bytes(b"once")
        assert refused(path.unlink) == "EPERM"
        assert refused(lambda: path.rename(served.root / "b")) == "EPERM"
        assert refused(lambda: path.write_bytes(b"twice")) == "EROFS"
        assert refused(lambda: os.truncate(path, 0)) == "EROFS"
        assert path.read_bytes() == b"once"


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Served]:
    with mounted(tmp_path, ASKING) as found:
        for name in ("d/a", "d/b", "d/keep", "free/a", "free/b"):
            (found.root / name).parent.mkdir(exist_ok=True)
            (found.root / name).write_bytes(b"bytes")
        yield found


def test_the_program_refuses_each_change_of_a_name_with_its_errno(asking: Served) -> None:
    kept, other = asking.root / "d" / "keep", asking.root / "d" / "a"
    assert refused(kept.unlink) == "EPERM"
    assert refused(lambda: kept.rename(asking.root / "d" / "c")) == "EPERM"
    assert refused(lambda: other.rename(kept)) == "EPERM"
    assert refused(lambda: kept.write_bytes(b"new")) == "EPERM"
    assert refused(lambda: os.truncate(kept, 0)) == "EPERM"
    assert kept.read_bytes() == other.read_bytes() == b"bytes"


def test_the_program_permits_each_change_once(asking: Served) -> None:
    file, other = asking.root / "d" / "a", asking.root / "d" / "b"
    file.write_bytes(b"more")
    os.truncate(file, 1)
    file.rename(other)
    assert other.read_bytes() == b"m"
    other.unlink()
    (asking.root / "d" / "keep").chmod(0o600)
    (asking.root / "empty").mkdir()
    (asking.root / "empty").rmdir()
    assert asking.asked() == [
        *("write d/a 0", "write d/a 0", "rename d/a 0", "remove d/b 0", "remove d/b 0"),
        "remove empty 0",
    ]


def test_an_exchange_asks_for_both_names_and_a_refused_one_changes_nothing(asking: Served) -> None:
    library = ctypes.CDLL(None, use_errno=True)

    def exchange(one: str, other: str) -> None:
        paths = [os.fsencode(asking.root / "d" / name) for name in (one, other)]
        if library.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE):
            raise OSError(ctypes.get_errno(), "")

    assert refused(lambda: exchange("a", "keep")) == "EPERM"
    exchange("a", "b")
    assert asking.asked() == [
        *("rename d/a 0", "rename d/keep 0"),
        *("rename d/a 0", "rename d/b 0"),
    ]


def test_a_lease_permits_all_changes_in_a_directory(asking: Served) -> None:
    for name in ("a", "b"):
        (asking.root / "free" / name).write_bytes(b"more")
        (asking.root / "free" / name).unlink()
    assert asking.asked() == ["write free/a 0"]


@pytest.mark.parametrize("seed", range(3))
def test_changes_give_the_tree_that_they_give_natively(served: Served, seed: int) -> None:
    native = served.slow.parent / "native"
    roots = (native, served.root)
    for root in roots:
        for number in range(3):
            (root / f"d{number}").mkdir(parents=True)
        for number in range(12):
            (root / f"d{number % 3}" / f"f{number}").write_bytes(b"%d" % number)
    for change in kills.changes(seed):
        for root in roots:
            change(root)
    assert kills.tree_of(served.root) == kills.tree_of(native)
    assert any(path.is_file() for path in served.slow.rglob("*"))


def test_a_wrong_use_of_a_pool_names_the_argument(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refuse: 'eat'"):
        Pool([tmp_path], refuse={"eat": 1})
    with pytest.raises(FileNotFoundError):
        Pool([tmp_path / "missing"])
    with pytest.raises(TypeError, match="branches"):
        Pool([1])  # type: ignore[list-item]
