"""Which archives are leased: as many as fit, and only readable ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tree.archive.support import member, write
from zcfuse.fuse import _directory_leases
from zcfuse.fuse._directory_leases import DirectoryLeases
from zcfuse.tree.archive import Archive, ArchiveIndex, Keep
from zcfuse.tree.archive._place import ArchivePlace


class Recorder:
    """Stands in for the data path."""

    def __init__(self) -> None:
        self.leased: dict[int, Any] = {}

    def lease_archive(self, nodeid: int, index: Any, fd: int, **shown: Any) -> None:
        self.leased[nodeid] = (index, shown)

    def drop_directory(self, nodeid: int) -> None:
        del self.leased[nodeid]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    path = write(tmp_path / "a.tar", member("file", data=b"x" * 100))
    return Archive(path, keep=Keep.NOT, uid=5)


def test_an_archive_is_leased_with_all_that_its_index_says(archive: Archive) -> None:
    datapath = Recorder()
    leases = DirectoryLeases(archive, datapath)
    leases.grant_root()
    index, shown = datapath.leased[1]
    assert index is archive.index.native
    assert (shown["uid"], shown["gid"]) == (5, None)
    assert shown["first_ino"] == archive.attributes(archive.root).ino


def test_archives_are_leased_while_there_is_room(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_directory_leases, "INDEX_BYTES", 2 * archive.index.size)
    datapath = Recorder()
    leases = DirectoryLeases(archive, datapath)
    for nodeid in (2, 3, 4):
        leases.grant(nodeid, archive.root)
    assert set(datapath.leased) == {2, 3}
    leases.forget([2])
    leases.grant(5, archive.root)
    assert set(datapath.leased) == {3, 5}


@pytest.mark.parametrize("broken", [ArchiveIndex, ArchivePlace], ids=["index", "archive"])
def test_what_cannot_be_read_is_not_leased(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "damaged")

    name = "native" if broken is ArchiveIndex else "open_unchanged"
    monkeypatch.setattr(broken, name, property(fail) if broken is ArchiveIndex else fail)
    datapath = Recorder()
    DirectoryLeases(archive, datapath).grant_root()
    assert not datapath.leased


def test_an_archive_of_another_kind_is_not_leased(archive: Archive) -> None:
    archive.lookup = archive.lookup  # type: ignore[method-assign]
    assert archive.lease_of(archive.root) is None
