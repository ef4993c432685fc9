"""How many files the users may have open in Python, and what is left for root."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from zcfuse.datapath import UserDescriptors
from zcfuse.fuse._handles import OpenFiles

DESCRIPTORS = 80  # a share of 20 for each user, and a reserve of 10
NEXT = 30
USER, OTHER, ROOT = 1000, 1001, 0


@dataclass
class Backing:
    """A file behind a descriptor of a number."""

    fd: int = 5
    path: str = ""
    closed: bool = False
    extents: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.extents = [SimpleNamespace(fd=self.fd, offset=0, length=1)]

    def close(self) -> None:
        self.closed = True


def open_as(files: OpenFiles, nodeid: int, uid: int, backing: Backing | None = None) -> int:
    again = files.again(nodeid)
    if again is not None:
        return again
    files.require_share(uid)
    opened = files.leased(nodeid, backing or Backing())  # type: ignore[arg-type]
    return files.add(opened, None, uid)


def test_a_user_has_a_share_of_files_and_the_others_have_theirs() -> None:
    files = OpenFiles(None, UserDescriptors(DESCRIPTORS, NEXT, shared=True))
    handles = [open_as(files, nodeid, USER) for nodeid in range(20)]
    with pytest.raises(OSError, match="too many files open") as refused:
        open_as(files, 100, USER)
    assert (refused.value.errno, files.refused) == (errno.EMFILE, 1)
    open_as(files, 0, USER)  # which is open
    for uid in (OTHER, ROOT):
        open_as(files, 200 + uid, uid)
    files.release(handles[1])
    open_as(files, 100, USER)


def test_the_user_of_a_private_mount_may_have_all_but_the_reserve() -> None:
    files = OpenFiles(None, UserDescriptors(DESCRIPTORS, NEXT, shared=False))
    for nodeid in range(40):
        open_as(files, nodeid, USER)
    with pytest.raises(OSError, match="too many files open"):
        open_as(files, 100, USER)


def test_the_last_descriptors_are_for_root() -> None:
    files = OpenFiles(None, UserDescriptors(DESCRIPTORS, NEXT, shared=True))
    backing = Backing(fd=70)
    with pytest.raises(OSError, match="reserve") as refused:
        open_as(files, 1, USER, backing)
    assert (refused.value.errno, backing.closed, len(files)) == (errno.EMFILE, True, 0)
    open_as(files, 1, ROOT, Backing(fd=70))
    assert (len(files), files.refused) == (1, 1)


def test_what_one_plane_holds_for_a_user_counts_in_the_other() -> None:
    users = UserDescriptors(DESCRIPTORS, NEXT, shared=True)
    files = OpenFiles(None, users)
    users.take(USER, 20)
    with pytest.raises(OSError, match="too many files open"):
        open_as(files, 1, USER)
    users.give(USER, 1)
    handle = open_as(files, 1, USER)
    assert not users.admits(USER)
    files.release(handle)
    assert users.admits(USER)


def test_a_file_of_many_parts_counts_as_its_descriptors() -> None:
    users = UserDescriptors(DESCRIPTORS, NEXT, shared=True)
    files = OpenFiles(None, users)
    parts = Backing()
    parts.extents = [SimpleNamespace(fd=fd, offset=0, length=1) for fd in range(20)]
    open_as(files, 1, USER, parts)
    assert not users.admits(USER)
    assert users.admits(OTHER)
