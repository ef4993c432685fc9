"""Several directories shown as one that clients can change, where a program places new files.

A file lies in one directory of the pool, its branch. The data path makes every change there. Python
decides the branch of a new file, for this file or, by a lease, for all new files of a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from zcfuse.arguments import PATHS, require_type
from zcfuse.tree._types import Answer, Lease, Node, Placed, Placement, Who
from zcfuse.tree._union import Union
from zcfuse.tree._union_nodes import UnionNode

HINT_ATTRIBUTE: Final = "user.zcfuse.hint"
REFUSABLE: Final = ("remove", "rename", "write")
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Hint(msgspec.Struct, frozen=True):
    """The facts about a new file beside its path.

    Attributes:
        mode: the type, and the permissions that the client asks for before its umask (stat(2)).
        flags: those of open(2); 0 if the client does not open it, as with mknod(2).
        text: the extended attribute `user.zcfuse.hint` of the directory, or "". A user sets it by
            setfattr(1) before writing many files of a kind.
    """

    mode: int
    flags: int
    text: str


Placing: TypeAlias = Callable[[str, Who, Hint], Answer[Placement]]
Permitting: TypeAlias = Callable[[str, str, Who], Answer[float | None]]


class Pool(Union):
    """Shows `branches`, directories, as one that clients can change (`MountOptions.rw`).

    A name that several branches have shows the first one's file. A directory is the one of the last
    branch that has it, and new directories are made there.

    Parameters:
        branches: paths of separate directories.
        place: called with the path of a new file, the client, and a hint; returns a `Placement`, or
            an awaitable of one. An OSError refuses the file with its errno. A subclass may define
            the method `place` instead.
        refuse: the errno that a change of what exists gets: by "remove", "rename", or "write" for
            opening a file to write and truncating it. The client that makes a file may write it.
        may_change: called with the change, one of these three words, the path of what exists, and
            the client; or an awaitable of the answer. An OSError refuses the change with its errno.
            None permits it; a number permits all changes in its directory for so many seconds. A
            subclass may define the method `may_change` instead.

    Raises:
        OSError: a branch cannot be opened; ELOOP: branches overlap.
        ValueError: there is no branch, or `refuse` names no such change.
    """

    def __init__(
        self,
        branches: Sequence[str | os.PathLike[str]],
        place: Placing | None = None,
        *,
        refuse: Mapping[str, int] | None = None,
        may_change: Permitting | None = None,
    ) -> None:
        for branch in branches if not isinstance(branches, PATHS) else ():
            require_type("branches", branch, (str, os.PathLike), "a list of directories")
        refuse = {} if refuse is None else refuse
        for change in refuse:
            if change not in REFUSABLE:
                raise ValueError(f"refuse: {change!r}: give one of {', '.join(REFUSABLE)}")
        self._roots: list[int] = []
        super().__init__(branches)
        self._chosen = place
        self._permits = may_change
        self._refusals = tuple(refuse.get(change, 0) for change in REFUSABLE)
        self._branches = [os.path.abspath(branch) for branch in branches]
        try:
            for branch in self._branches:
                self._roots.append(os.open(branch, _DIRECTORY))
        except OSError:
            self.close()
            raise

    def place(self, name: str, who: Who, hint: Hint) -> Answer[Placement]:
        """Return where the new file with the path `name` goes."""
        if self._chosen is None:
            raise NotImplementedError("a pool needs place, or a subclass that defines it")
        return self._chosen(name, who, hint)

    def may_change(self, change: str, name: str, who: Who) -> Answer[float | None]:
        """Permit a change of the file or directory with the path `name`, or raise OSError.

        Returns for how many seconds the directory needs no other question; None: it needs one.
        """
        return None if self._permits is None else self._permits(change, name, who)

    @property
    def asks(self) -> bool:
        """Whether changes of what exists are asked for."""
        return self._permits is not None or type(self).may_change is not Pool.may_change

    def lease_of(self, node: Node) -> Lease | None:
        """Return the branches as the root's lease."""
        if node is not self.root:
            return None
        layers = [part.layer.lease_root() for part in self.root.parts]
        leases = [lease for lease in layers if lease is not None]
        remove, rename, write = self._refusals
        refusals = (remove, rename, write)
        return Lease(leases[0].fd, layers=leases, refusals=refusals, asks=self.asks)

    def placement(
        self, directory: Node, name: bytes, who: Who, mode: int, flags: int
    ) -> Answer[Placement]:
        """Ask where a new file of a directory goes."""
        names = _names(directory)
        path = os.fsdecode(b"/".join([*names, name]))
        return self.place(path, who, Hint(mode, flags, self._text(names)))

    def permission(
        self, change: str, directory: Node, name: bytes, who: Who
    ) -> Answer[float | None]:
        """Ask whether a client may change a name of a directory."""
        return self.may_change(change, os.fsdecode(b"/".join([*_names(directory), name])), who)

    def settle(self, directory: Node, placement: Placement) -> Placed:
        """Make a directory in the branch that a placement chose.

        Raises:
            OSError: it cannot be made.
            ValueError: the pool has no such branch.
        """
        branch = os.path.abspath(placement.branch)
        if branch not in self._branches:
            raise ValueError(f"{placement.branch}: not a branch of the pool")
        number = self._branches.index(branch)
        self.make_directory(directory, number)
        valid = placement.valid_for
        return Placed(number, placement.leased, None if valid is None else round(valid * 1000))

    def place_of(self, node: Node) -> tuple[Node, bytes]:
        """Return the directory of a file, and its name there."""
        if not isinstance(node, UnionNode) or node.parent is None:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node.parent, node.name

    def branches_of(self, node: Node) -> Sequence[int]:
        """Return the branches that have a node, by their numbers."""
        assert isinstance(node, UnionNode)
        return [part.layer.index for part in node.parts]

    def make_directory(self, directory: Node, branch: int) -> None:
        """Make a directory in a branch with the owner, the mode and the attributes that it shows.

        Raises:
            OSError: it cannot be made; ENOTDIR: the branch has a file in its way.
        """
        with contextlib.ExitStack() as opened:
            at: list[int | None] = list(self._roots)
            for name in _names(directory):
                below = [_entered(opened, fd, name) for fd in at]
                shown = next((fd for fd in reversed(below) if fd is not None), None)
                above = at[branch]
                if shown is None or above is None:
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
                if below[branch] is None:
                    _copy_directory(shown, above, name)
                    below[branch] = _entered(opened, above, name)
                at = below

    def close(self) -> None:
        """Close the branches; open files and listings can still use their own descriptors."""
        for fd in self._roots:
            os.close(fd)
        self._roots.clear()
        super().close()

    def _text(self, names: Sequence[bytes]) -> str:
        with contextlib.ExitStack() as opened:
            at: list[int | None] = list(self._roots)
            for name in names:
                at = [_entered(opened, fd, name) for fd in at]
            shown = next((fd for fd in reversed(at) if fd is not None), None)
            with contextlib.suppress(OSError):
                return os.getxattr(f"/proc/self/fd/{shown}", HINT_ATTRIBUTE).decode()
        return ""


def _names(directory: Node) -> list[bytes]:
    """Return the path of a directory from the root."""
    names = []
    at: Node | None = directory
    while isinstance(at, UnionNode) and at.parent is not None:
        names.append(at.name)
        at = at.parent
    return names[::-1]


def _entered(opened: contextlib.ExitStack, above: int | None, name: bytes) -> int | None:
    """Open a directory without following a link; None if it is missing or no directory."""
    if above is None:
        return None
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        return None
    opened.callback(os.close, fd)
    return fd


def _copy_directory(shown: int, above: int, name: bytes) -> None:
    """Make a directory like an open one. A user cannot enter it before it is like that."""
    status = os.stat(shown)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above)
    made = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        path = f"/proc/self/fd/{made}"
        for attribute in os.listxattr(f"/proc/self/fd/{shown}"):
            with contextlib.suppress(OSError):  # the branch's filesystem may have none
                os.setxattr(path, attribute, os.getxattr(f"/proc/self/fd/{shown}", attribute))
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, stat.S_IMODE(status.st_mode))
    finally:
        os.close(made)
