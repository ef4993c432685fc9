"""A tree of an archive's members. Its files are byte ranges of the archive, without copies."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Final

import msgspec

from zcfuse.arguments import require_call, require_one_of, require_path, require_type
from zcfuse.datapath import BLOCK_BYTES, NAME_BYTES
from zcfuse.tree._overrides import overrides
from zcfuse.tree._renewal import COHERENCE, Renewable, RenewalError
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
from zcfuse.tree.archive._errors import ArchiveError, printable, shown
from zcfuse.tree.archive._files import MemberFile, UnpackedFile
from zcfuse.tree.archive._identity import ArchiveIdentity
from zcfuse.tree.archive._index import ArchiveIndex
from zcfuse.tree.archive._indexed import Indexed
from zcfuse.tree.archive._members import PACKED, Kind
from zcfuse.tree.archive._open import Keep, index_place
from zcfuse.tree.archive._parse import Progress
from zcfuse.tree.archive._place import ArchivePlace
from zcfuse.tree.archive._unpacked import UnpackedStatistics

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

    __slots__ = ("above", "identity", "number", "of")

    def __init__(self, of: Indexed, number: int, above: ArchiveNode | None = None) -> None:
        self.of = of
        self.number = number
        self.above = above
        self.identity: tuple[bytes, int] = (of.key, number)


class Archive(Tree, Renewable):
    """Shows the members of a tar archive, compressed or not, or of a zip archive as files.

    Creating one reads the archive's headers once; later ones use the kept index. After a change of
    the archive opens give ESTALE, never other bytes. A mount that pushes changes indexes it again.

    Parameters:
        path: the archive. Symbolic links to it are followed once, now.
        keep: where to keep the index.
        progress: called with bytes done and total bytes, unless a kept index is used.
        salvage: whether to show the members before the damage of a tar archive (a header that
            cannot be read, or a missing end); without, damage is an error.
        uid: the owner of everything; None: the archive's owners.
        gid: the group of everything; None: the archive's groups.
        budget: bytes of memory for decompressed members, or a budget shared by several archives.
        coherence: that of `MountOptions` for this archive alone; None: the mount's. With "push" or
            "strict" a mount shows the new members once the archive has been replaced.

    Raises:
        ArchiveError: the archive cannot be indexed; one line says why, and what to do.
        OSError: it cannot be opened or read.
    """

    root: ArchiveNode
    coherence: str | None = None
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
        coherence: str | None = None,
    ) -> None:
        require_path("path", path)
        require_type("keep", keep, Keep, "a Keep")
        require_call("progress", progress)
        require_type("salvage", salvage, bool, "True or False")
        require_type("uid", uid, int | None, "a uid or None")
        require_type("gid", gid, int | None, "a gid or None")
        require_type("budget", budget, (int, UnpackBudget), "bytes or an UnpackBudget")
        require_one_of("coherence", coherence, COHERENCE)
        self.coherence = coherence
        self._of = f" of {os.fsdecode(path)}"
        self._place = ArchivePlace(path)
        self._read = partial(index_place, self._place, keep=keep, salvage=salvage)
        self._uid = uid
        self._gid = gid
        self._budget = UnpackBudget(budget) if isinstance(budget, int) else budget
        self._show(Indexed(self._read(progress=progress), self._budget))
        self._seen: ArchiveIdentity | None = self.index.identity

    @property
    def index(self) -> ArchiveIndex:
        """The index of what it shows now."""
        return self._now.index

    def watched(self) -> Collection[bytes]:
        """Return the directory of the archive."""
        return (self._place.directory,)

    def look(self) -> Callable[[], None] | None:
        """Index the archive again if it has changed. Raises RenewalError."""
        try:
            before, self._seen = self._seen, self._place.identity()
            if self._seen == before:
                return None
            index = self._read()
        except (ArchiveError, OSError) as error:
            raise RenewalError(str(error)) from error
        self._seen = index.identity
        if self._seen == self.index.identity:
            index.close()
            return None
        _ = index.native  # read here, not in the trio thread
        return partial(self._show, Indexed(index, self._budget))

    def _show(self, indexed: Indexed) -> None:
        """Show this from now on. Nodes and open files of before stay with what they had."""
        self._now = indexed
        self.root = ArchiveNode(indexed, indexed.index.root)

    def unpacked(self) -> UnpackedStatistics:
        """Return the counts of decompressed members, and the reasons for failures."""
        return self._now.unpacked.statistics()

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
        number = own.of.index.lookup(own.number, name)
        if number is None:
            raise _error(errno.ENOENT)
        return self._found(own, number)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes in the archive."""
        return self._attributes(_own(node))

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        own = _own(node)
        return own.of.index.readlink(own.number)

    def open(self, node: Node) -> BackingFile:
        """Open a member.

        Raises OSError: ESTALE if the archive has changed, EIO if the member is unreadable, ENOMEM
        if it does not fit the budget, BlockingIOError while it is being decompressed.
        """
        own = _own(node)
        index = own.of.index
        member = index.member(own.number)
        if member.kind == Kind.DIRECTORY:
            raise _error(errno.EISDIR)
        if member.kind == Kind.SYMLINK:
            raise _error(errno.ELOOP)
        attributes = self._attributes(own)
        if member.kind in PACKED:
            index.check()
            return UnpackedFile(own.of.unpacked, member, attributes, own.of)
        return MemberFile(own.of.shared, tuple(index.runs(member.node)), attributes)

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory."""
        own = _own(node)
        if not stat.S_ISDIR(self._attributes(own).mode):
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
        index = _own(node).of.index
        member = index.member(_own(node).number)
        kind = _KINDS.get(member.kind, "member")
        if member.kind in PACKED:
            name = member.kind.name.lower().replace("_", " ")
            kind = f"{name} member, decompressed into memory when it is opened,"
        return f"{kind} of the {index.container} archive {shown(index.identity.path)}"

    def lease_of(self, node: Node) -> Lease | None:
        """Return the whole index, for the root, unless it is too large."""
        index = self.index
        size = index.size
        if node is not self.root or size > INDEX_BYTES or overrides(self, Archive, _FREE):
            return None
        archive = ArchiveLease(
            size=size,
            index=lambda: index.native,
            open=index.open,
            first_ino=self._now.first_ino,
            uid=self._uid,
            gid=self._gid,
        )
        return Lease(-1, archive=archive)

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of a member that the data plane found, by its inode number."""
        above = _own(directory)
        number = identity.ino - above.of.first_ino
        above.of.index.member(number)
        return ArchiveNode(above.of, number, above)

    def close(self) -> None:
        """Free the index and the decompressed members."""
        self._now.close()

    def _found(self, directory: ArchiveNode, number: int) -> tuple[ArchiveNode, Attributes]:
        found = ArchiveNode(directory.of, number, directory)
        attributes = self._attributes(found)
        if not stat.S_ISDIR(attributes.mode):
            found.above = None
        return found, attributes

    def _attributes(self, node: ArchiveNode) -> Attributes:
        of = node.of
        return of.index.attributes(
            node.number, first_ino=of.first_ino, uid=self._uid, gid=self._gid
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
        names = self._directory.of.index.list(self._directory.number, first)
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
