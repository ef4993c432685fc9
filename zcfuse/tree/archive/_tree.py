"""A tree of an archive's members. Its files are byte ranges of the archive, without copies."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from zcfuse.arguments import require_call, require_path, require_type
from zcfuse.datapath import BLOCK_BYTES, MADE_INO_BIT, NAME_BYTES
from zcfuse.tree._overrides import overrides
from zcfuse.tree._types import (
    ArchiveLease,
    Attributes,
    BackingFile,
    Identity,
    Lease,
    Listing,
    Node,
    StatFs,
    Tree,
)
from zcfuse.tree.archive._budget import DEFAULT_BUDGET, UnpackBudget
from zcfuse.tree.archive._errors import printable, shown
from zcfuse.tree.archive._files import MemberFile, SharedArchive, UnpackedFile
from zcfuse.tree.archive._members import PACKED, Kind
from zcfuse.tree.archive._open import Keep, index_archive
from zcfuse.tree.archive._parse import Progress
from zcfuse.tree.archive._unpacked import UnpackedMembers, UnpackedStatistics

DOTS: Final = 2
"""Entries before the first name of a listing: "." and ".."."""


INDEX_BYTES: Final = 32 << 20
"""The largest index for the data path, which reads it whole in 20 to 50 ms."""

# A subclass that overrides this still answers like an archive.
_FREE: Final = frozenset({"report"})

_KINDS: Final = {
    Kind.DIRECTORY: "directory",
    Kind.FILE: "member, stored as it is,",
    Kind.SPARSE: "sparse member, stored in pieces,",
    Kind.SYMLINK: "symbolic link",
    Kind.UNREADABLE: "member that cannot be read",
}


class ArchiveNode(Node):
    """A member, or a directory without a member. Only directories know their parent."""

    __slots__ = ("above", "identity", "number")

    def __init__(self, archive: bytes, number: int, above: ArchiveNode | None = None) -> None:
        self.number = number
        self.above = above
        self.identity: tuple[bytes, int] = (archive, number)


class Archive(Tree):
    """Shows the members of a tar archive, compressed or not, or of a zip archive as files.

    Creating one reads the archive's headers once; later ones use the kept index. The archive must
    not change: later opens would give ESTALE, never other bytes.

    Parameters:
        path: the archive. Symbolic links to it are followed once, now.
        keep: where to keep the index.
        progress: called with bytes done and total bytes, unless a kept index is used.
        salvage: whether to show the members before the damage of a tar archive (a header that
            cannot be read, or a missing end); without, damage is an error.
        uid: the owner of everything; None: the archive's owners.
        gid: the group of everything; None: the archive's groups.
        budget: bytes of memory for decompressed members, or a budget shared by several archives.

    Raises:
        ArchiveError: the archive cannot be indexed; one line says why, and what to do.
        OSError: it cannot be opened or read.
    """

    root: ArchiveNode
    engine_reason = ""
    """Why FUSE serves a mount of it, in the status of that mount."""

    def __init__(
        self,
        path: str | bytes | os.PathLike[str],
        *,
        keep: Keep = Keep.CACHE,
        progress: Progress = lambda done, total: None,
        salvage: bool = False,
        uid: int | None = None,
        gid: int | None = None,
        budget: int | UnpackBudget = DEFAULT_BUDGET,
    ) -> None:
        require_path("path", path)
        require_type("keep", keep, Keep, "a Keep")
        require_call("progress", progress)
        require_type("salvage", salvage, bool, "True or False")
        require_type("uid", uid, int | None, "a uid or None")
        require_type("gid", gid, int | None, "a gid or None")
        require_type("budget", budget, (int, UnpackBudget), "bytes or an UnpackBudget")
        self._of = f" of {os.fsdecode(path)}"
        self.index = index_archive(path, keep=keep, progress=progress, salvage=salvage)
        self._uid = uid
        self._gid = gid
        self._unpacked = UnpackedMembers(
            self.index, UnpackBudget(budget) if isinstance(budget, int) else budget
        )
        self._shared = SharedArchive(self.index)
        self._key = hashlib.blake2b(repr(self.index.identity).encode(), digest_size=16).digest()
        self._first_ino = MADE_INO_BIT | (int.from_bytes(self._key[:4]) >> 1) << 32
        self.root = ArchiveNode(self._key, self.index.root)

    def unpacked(self) -> UnpackedStatistics:
        """Return the counts of decompressed members, and the reasons for failures."""
        return self._unpacked.statistics()

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return, as "archives", the index and the decompressed members, by path."""
        index = self.index
        told = {
            "container": index.container,
            "members": index.members,
            "index": None if index.kept is None else printable(os.fsencode(index.kept)),
            "index_reused": index.reused,
            "index_reason": printable(os.fsencode(index.kept_reason)),
            "notes": [(note.reason, note.count, printable(note.example)) for note in index.notes],
            "unpacked": msgspec.to_builtins(self.unpacked()),
            "engine_reason": self.engine_reason,
        }
        return {"archives": {printable(index.identity.path): told}}

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the node of a name."""
        own = _own(directory)
        if name == b".":
            return own, self.attributes(own)
        if name == b"..":
            above = own.above or own
            return above, self.attributes(above)
        number = self.index.lookup(own.number, name)
        if number is None:
            raise _error(errno.ENOENT)
        return self._found(own, number)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes in the archive."""
        return self._attributes(_own(node).number)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self.index.readlink(_own(node).number)

    def open(self, node: Node) -> BackingFile:
        """Open a member.

        Raises OSError: ESTALE if the archive has changed, EIO if the member is unreadable, ENOMEM
        if it does not fit the budget, BlockingIOError while it is being decompressed.
        """
        member = self.index.member(_own(node).number)
        if member.kind == Kind.DIRECTORY:
            raise _error(errno.EISDIR)
        if member.kind == Kind.SYMLINK:
            raise _error(errno.ELOOP)
        attributes = self._attributes(member.node)
        if member.kind in PACKED:
            self.index.check()
            return UnpackedFile(self._unpacked, member, attributes)
        return MemberFile(self._shared, tuple(self.index.runs(member.node)), attributes)

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory."""
        own = _own(node)
        if not stat.S_ISDIR(self._attributes(own.number).mode):
            raise _error(errno.ENOTDIR)
        return _ArchiveListing(self, own)

    def statfs(self) -> StatFs:
        """Return the archive's size and number of names, without free space."""
        blocks = -(-self.index.identity.size // BLOCK_BYTES)
        names = len(self.index)
        return StatFs(BLOCK_BYTES, BLOCK_BYTES, blocks, 0, 0, names, 0, 0, NAME_BYTES)

    def part_bytes(self) -> int:
        """Return the archive's size by its names."""
        return self.index.identity.size // max(1, len(self.index))

    def describe(self, node: Node) -> str:
        """Describe the storage of the member."""
        member = self.index.member(_own(node).number)
        kind = _KINDS.get(member.kind, "member")
        if member.kind in PACKED:
            name = member.kind.name.lower().replace("_", " ")
            kind = f"{name} member, decompressed into memory when it is opened,"
        return f"{kind} of the {self.index.container} archive {shown(self.index.identity.path)}"

    def lease_of(self, node: Node) -> Lease | None:
        """Return the whole index, for the root, unless it is too large."""
        size = self.index.size
        if node is not self.root or size > INDEX_BYTES or overrides(self, Archive, _FREE):
            return None
        archive = ArchiveLease(
            size=size,
            index=lambda: self.index.native,
            open=self.index.open,
            first_ino=self._first_ino,
            uid=self._uid,
            gid=self._gid,
        )
        return Lease(-1, archive=archive)

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of a member that the data plane found, by its inode number."""
        number = identity.ino - self._first_ino
        self.index.member(number)
        return ArchiveNode(self._key, number, _own(directory))

    def close(self) -> None:
        """Free the index and the decompressed members."""
        self._unpacked.close()
        self.index.close()

    def _found(self, directory: ArchiveNode, number: int) -> tuple[ArchiveNode, Attributes]:
        attributes = self._attributes(number)
        above = directory if stat.S_ISDIR(attributes.mode) else None
        return ArchiveNode(self._key, number, above), attributes

    def _attributes(self, number: int) -> Attributes:
        return self.index.attributes(
            number, first_ino=self._first_ino, uid=self._uid, gid=self._gid
        )


class _ArchiveListing(Listing):
    """The names of a directory, which never change. Offset n follows entry n - 1."""

    __slots__ = ("_directory", "_tree")

    def __init__(self, tree: Archive, directory: ArchiveNode) -> None:
        self._tree = tree
        self._directory = directory

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries from offset `start`."""
        for offset, name in enumerate((b".", b"..")):
            if start <= offset:
                yield offset + 1, name, *self._tree.lookup(self._directory, name)
        first = max(start - DOTS, 0)
        names = self._tree.index.list(self._directory.number, first)
        for offset, (name, number) in enumerate(names, first + DOTS + 1):
            yield offset, name, *self._tree._found(self._directory, number)

    def close(self) -> None:
        """Do nothing: a listing owns nothing."""


def _own(node: Node) -> ArchiveNode:
    if isinstance(node, ArchiveNode):
        return node
    raise _error(errno.ESTALE)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
