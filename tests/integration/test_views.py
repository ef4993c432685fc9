"""Each ready-made view shows what its page in docs/views.md says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Shows, write
from tests.integration.test_leased_answers import upcalls
from tests.support import requires
from zcfuse import Dir, File, views

CONTENTS = {"a/1.jpg": b"one", "a/2.jpg": b"two", "b/c/1.jpg": b"three"}


@pytest.fixture
def files(tmp_path: Path) -> str:
    """A directory with a few files."""
    for name, content in CONTENTS.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "files" / "link").symlink_to("a/1.jpg")
    return str(tmp_path / "files")


def shown(directory: Dir, above: str = "") -> dict[str, bytes]:
    """What a Dir shows by path: the bytes of its files."""
    found: dict[str, bytes] = {}
    for name in directory:
        entry = directory[name]
        if isinstance(entry, Dir):
            found.update(shown(entry, f"{above}{name}/"))
        else:
            assert isinstance(entry, File)
            found[above + name] = Path(os.fsdecode(entry.file)).read_bytes()
    return found


def test_split_by_a_function_shows_each_file_in_its_part(files: str) -> None:
    def part(name: str) -> str | None:
        return {"a": "train", "b": None}[name[0]]

    assert shown(views.split(files, part)) == {
        "train/a/1.jpg": b"one",
        "train/a/2.jpg": b"two",
    }


def test_split_by_shares_keeps_a_file_in_its_part_when_others_come() -> None:
    few = {f"{number}": "/x" for number in range(500)}
    many = {f"{number}": "/x" for number in range(1000)}
    before, after = (
        {part: set(view[part]) for part in view}  # type: ignore[call-overload]
        for view in (views.split(names, {"train": 3, "val": 1}) for names in (few, many))
    )
    assert before["train"] <= after["train"]
    assert before["val"] <= after["val"]
    assert after["train"] | after["val"] == set(many)
    assert 0.7 < len(after["train"]) / 1000 < 0.8


@pytest.mark.parametrize("shares", [{}, {"train": 1, "val": 0}, {"train": float("nan")}])
def test_shares_that_are_none_are_refused(files: str, shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="by="):
        views.split(files, shares)


def test_flatten_puts_all_files_side_by_side(files: str) -> None:
    assert shown(views.flatten(files)) == {
        name.replace("/", "__"): content for name, content in CONTENTS.items()
    }


def test_names_that_meet_are_refused(files: str) -> None:
    with pytest.raises(ValueError, match="get one name"):
        views.flatten({"a/b": "/x", "a__b": "/y"})
    with pytest.raises(ValueError, match="have one name"):
        views.flatten(["/x/a", "/y/a"])
    with pytest.raises(ValueError, match="without a slash"):
        views.flatten(files, "/")


def test_dedup_serves_equal_bytes_from_one_file(tmp_path: Path) -> None:
    for name, content, mode in [
        ("a", b"same", 0o600),
        ("b", b"same", 0o644),
        ("c", b"diff", 0o644),
    ]:
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    view = views.dedup(str(tmp_path))
    assert shown(view) == {"a": b"same", "b": b"same", "c": b"diff"}
    entries = [view[name] for name in "abc"]
    assert all(isinstance(entry, File) for entry in entries)
    assert [os.path.basename(entry.file) for entry in entries] == [b"a", b"a", b"c"]  # type: ignore[union-attr]
    assert entries[1].overrides.mode == 0o644  # type: ignore[union-attr]


@requires("mounting")
def test_faulty_fails_in_its_range_only(source: str, shows: Shows) -> None:
    path = write(source, "file", bytes(range(256)) * 64)
    _, client = shows(
        "from zcfuse import views\n"
        "tree = Dir({'bad': views.faulty(path, error=5, range=(8192, 8193)),"
        " 'slow': views.faulty(path, delay=0.05)})",
        path=path,
    )
    whole = Path(path).read_bytes()
    client.value("bad = os.open(p('bad'), os.O_RDONLY)")
    assert client.value("os.pread(bad, 4096, 0)") == whole[:4096]
    assert client.value("os.pread(bad, 4096, 12288)") == whole[12288:]
    assert client.outcome("os.pread(bad, 4096, 8192)") == errno.errorcode[5]
    assert client.value("content('slow')") == whole


@pytest.mark.parametrize("given", [{"delay": -1}, {"range": (5, 4)}, {"range": (-1, 4)}])
def test_a_fault_that_is_none_is_refused(files: str, given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        views.faulty(f"{files}/a/1.jpg", **given)  # type: ignore[arg-type]


@requires("mounting")
def test_tiered_serves_what_is_opened_often_from_the_fast_disk(
    source: str, tmp_path: Path, shows: Shows
) -> None:
    fast = tmp_path / "fast"
    fast.mkdir()
    for name in ("often", "seldom"):
        write(source, name, name.encode())
    program, client = shows(
        "from zcfuse import views\ntree = views.tiered(fast, slow, after=3)",
        fast=str(fast),
        slow=source,
    )
    client.value("[content('often') for _ in range(3)] + [content('seldom')]")
    assert program.run("return await tree.promote(served)") == ["often"]
    assert (fast / "often").read_bytes() == b"often"
    assert not (fast / "seldom").exists()
    (fast / "often").write_bytes(b"OFTEN")  # so that the test sees where the bytes come from
    assert client.value("[content('often'), content('seldom')]") == [b"OFTEN", b"seldom"]
    assert program.run("return await tree.promote(served)") == []


def test_tiered_takes_up_the_copies_that_are_there(tmp_path: Path) -> None:
    for tier in ("fast", "slow"):
        (tmp_path / tier).mkdir()
        (tmp_path / tier / "file").write_bytes(tier.encode())
        os.utime(tmp_path / tier / "file", (1, 1))
    view = views.tiered(tmp_path / "fast", tmp_path / "slow")
    assert shown(view) == {"file": b"fast"}
    os.utime(tmp_path / "fast" / "file", (2, 2))
    assert shown(views.tiered(tmp_path / "fast", tmp_path / "slow")) == {"file": b"slow"}
    with pytest.raises(ValueError, match="after=0"):
        views.tiered(tmp_path / "fast", tmp_path / "slow", after=0)


@requires("mounting", "root")
def test_by_user_shows_each_user_another_directory(source: str, public: str, shows: Shows) -> None:
    program, client = shows(
        "from zcfuse import views\n"
        "options = MountOptions(allow_other=True)\n"
        "other = Dir({'other': Bytes(b'o')})\n"
        "tree = views.by_user({0: Dir({'root': Bytes(b'r')})}, default=other)",
        at=os.path.join(public, "mnt"),
    )
    assert client.value("sorted(os.fsdecode(n) for n in os.listdir(p()))") == ["root"]
    other = Client(program.mountpoint, program, uid=65534)
    try:
        assert other.value("sorted(os.fsdecode(n) for n in os.listdir(p()))") == ["other"]
        assert other.value("content('other')") == b"o"
        assert other.outcome("content('root')") == "ENOENT"
        before = upcalls(program)
        for _ in range(3):
            assert client.value("os.listdir(p()), content('root')") == ([b"root"], b"r")
            assert other.value("os.listdir(p()), content('other')") == ([b"other"], b"o")
            assert other.outcome("content('root')") == "ENOENT"
        assert upcalls(program) == before
        program.run("other.replace('other', Bytes(b'p')); other.add('new', Bytes(b'n'))")
        program.run("await served.notified()")
        assert other.value("content('other'), content('new')") == (b"p", b"n")
        assert other.value("sorted(os.listdir(p()))") == [b"new", b"other"]
        assert client.value("os.listdir(p())") == [b"root"]
    finally:
        other.close()
