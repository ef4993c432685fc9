"""The tree that shows a program's directory and everything below it.

It holds no descriptors and only its root node: a lookup makes a node, which belongs to the caller.
Used in the trio thread of the mount that shows it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    MutableSequence,
    Sequence,
)
from typing import Final

import msgspec

from zcfuse.datapath import BLOCK_BYTES, MADE_INO_BIT, NAME_BYTES
from zcfuse.tree._bytes import Bytes
from zcfuse.tree._content import Blob, content_of
from zcfuse.tree._dir import Dir, checked_name
from zcfuse.tree._entry import Content, Entry, Symlink
from zcfuse.tree._leased import AnswerLease, Leased, LeasedNames
from zcfuse.tree._near import ask_far
from zcfuse.tree._paths import PathOpener
from zcfuse.tree._renewal import RenewablePart
from zcfuse.tree._report import report_of, trees_in
from zcfuse.tree._sources import ACCESS_ACL, LOG, Runs, Sources
from zcfuse.tree._types import (
    Answer,
    Attributes,
    BackingFile,
    Found,
    Identity,
    Lease,
    Listing,
    Node,
    StatFs,
    Tree,
    Who,
)
from zcfuse.tree.virtual._answers import EVERYONE, Answers
from zcfuse.tree.virtual._described import DescribedDir, asks, is_described
from zcfuse.tree.virtual._file import BlobFile, MadeFile, blocks_of
from zcfuse.tree.virtual._listing import DirListing, GraftListing
from zcfuse.tree.virtual._nodes import DirNode, EntryNode, Graft, GraftNode, identity_of
from zcfuse.tree.virtual._part_bytes import part_bytes
from zcfuse.tree.virtual._renewables import renewables_in

_MODES: Final = {stat.S_IFDIR: 0o555, stat.S_IFLNK: 0o777, stat.S_IFREG: 0o444}
_ROOT_IDENTITY: Final = identity_of(b"", b"", "root")


class VirtualTree(Tree):
    """Shows `root`. Several trees may show one directory; none of them owns it.

    The user who makes the tree owns entries without an owner.
    """

    root: DirNode

    def __init__(self, root: Dir) -> None:
        self._of = f" of {root!r}"
        self._opener: Final = PathOpener()
        self._refused: tuple[int, int] | None = None
        self._changed: Callable[[Node, bytes], None] | None = None
        self._uid, self._gid = os.geteuid(), os.getegid()
        self._made_ns = time.time_ns()
        self.root = DirNode(self, root, None, b"", _ROOT_IDENTITY)
        self._values = DescribedDir(self)
        self._answers = Answers()

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP for files and trees on this device."""
        self._refused = (major, minor)
        self._opener.refuse_device(major, minor)

    def watch(self, changed: Callable[[Node, bytes], None] | None) -> None:
        """Call `changed` when a Dir changes."""
        self._changed = changed
        if changed is None:
            self._values.withdraw()

    def name_changed(self, directory: DirNode, name: bytes) -> None:
        """Pass on that `name` in `directory` means something else now; b"": its listing ended."""
        self._answers.drop(directory.identity, name)
        self._values.changed(directory, name)
        if self._changed is not None and name:
            self._changed(directory, name)

    def lookup(self, directory: Node, name: bytes) -> Found:
        """Return the meaning of `name` in a directory that is not dynamic."""
        if isinstance(directory, GraftNode):
            return self._from(directory, directory.graft.tree.lookup(directory.inner, name))
        parent = _directory(directory)
        if name in (b".", b".."):
            node = parent if name == b"." else parent.parent or parent
            return node, self.attributes(node)
        return self._found(parent, name, parent.directory.get(_short(name)))

    def lookup_for(self, directory: Node, name: bytes, who: Who) -> Answer[Found]:
        """Return the meaning of `name` for the client's process."""
        if isinstance(directory, GraftNode):
            answer = directory.graft.tree.lookup_for(directory.inner, name, who)
            if isinstance(answer, Awaitable):
                return self._from_later(directory, answer)
            return self._from(directory, answer)
        if _directory(directory).directory.dynamic and name not in (b".", b".."):
            return self._asked(_directory(directory), _short(name), who)
        return self.lookup(directory, name)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes; ESTALE if other files are behind it now."""
        if isinstance(node, GraftNode):
            return node.graft.tree.attributes(node.inner)
        own = _own(node)
        if isinstance(own.entry, Blob):
            return self._looked_at(own, own.entry)
        return self._plain(own)

    def part_bytes(self) -> int:
        """Return the estimate for the directory as it is now."""
        return part_bytes(self.root.directory)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link; EINVAL for anything else."""
        if isinstance(node, GraftNode):
            return node.graft.tree.readlink(node.inner)
        entry = _own(node).entry
        if not isinstance(entry, Symlink):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return entry.target

    def may_open(self, node: Node, who: Who) -> Answer[None]:
        """Ask the directory that holds the file, where it wants to be asked."""
        if isinstance(node, GraftNode):
            return node.graft.tree.may_open(node.inner, who)
        own = _own(node)
        if own.parent is None or type(own.parent.directory).may_open is Dir.may_open:
            return None
        return own.parent.directory.may_open(os.fsdecode(own.name), who)

    def open(self, node: Node) -> BackingFile:
        """Open a file; ESTALE if other files are behind it than at the lookup."""
        if isinstance(node, GraftNode):
            return node.graft.tree.open(node.inner)
        own = _own(node)
        if isinstance(own.entry, Blob):
            return self._opened(own, own.entry)
        number = errno.EISDIR if isinstance(own, DirNode) else errno.ELOOP
        raise OSError(number, os.strerror(number))

    def listing(self, node: Node) -> Listing:
        """Return the names of a directory that is not dynamic."""
        if isinstance(node, GraftNode):
            return GraftListing(node, node.graft.tree.listing(node.inner))
        own = _directory(node)
        return DirListing(self, own, _unchanging(own.directory.names()), own.directory.get)

    def listing_for(self, node: Node, who: Who) -> Answer[Listing]:
        """Return the names of a directory for the client's process."""
        if isinstance(node, GraftNode):
            answer = node.graft.tree.listing_for(node.inner, who)
            if isinstance(answer, Awaitable):
                return _listed_later(node, answer)
            return GraftListing(node, answer)
        own = _directory(node)
        return self._listed(own, who) if own.directory.dynamic else self.listing(own)

    def statfs(self) -> StatFs:
        """Return no sizes: what is shown may lie on any number of filesystems."""
        return StatFs(BLOCK_BYTES, BLOCK_BYTES, 0, 0, 0, 0, 0, 0, NAME_BYTES)

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute; a file has only the access ACL."""
        if isinstance(node, GraftNode):
            return node.graft.tree.getxattr(node.inner, name)
        acl = self._acl(_own(node)) if name == ACCESS_ACL else b""
        return acl or super().getxattr(node, name)

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes that getxattr() has."""
        if isinstance(node, GraftNode):
            return node.graft.tree.listxattr(node.inner)
        return (ACCESS_ACL,) if self._acl(_own(node)) else ()

    def access(self, node: Node, mask: int, uid: int, gids: Collection[int]) -> bool:
        """Return the answer of the node's tree."""
        if isinstance(node, GraftNode):
            return node.graft.tree.access(node.inner, mask, uid, gids)
        return super().access(node, mask, uid, gids)

    def lease_of(self, node: Node) -> Lease | None:
        """Return the lease of another tree's node, or the root's description by value."""
        if isinstance(node, GraftNode):
            return node.graft.tree.lease_of(node.inner)
        # A subclass may answer differently.
        if node is self.root and type(self) is VirtualTree and is_described(self.root.directory):
            return Lease(-1, described=self._values)
        return None

    def describe(self, node: Node) -> str:
        """Return the kind of entry, or the description by the node's tree."""
        if isinstance(node, GraftNode):
            return node.graft.tree.describe(node.inner)
        own = _own(node)
        entry = own.entry
        if isinstance(entry, Dir) and entry.dynamic:
            return f"dynamic directory of {type(entry).__qualname__}: a policy answers each client"
        origin = "" if own.parent is None else own.parent.directory.entry_origin
        return f"{entry.describe()}{origin}"

    def real_path(self, node: Node) -> bytes | None:
        """Return the answer of another tree for its node; the entries' files are opened."""
        if isinstance(node, GraftNode) and type(self).open is VirtualTree.open:
            return node.graft.tree.real_path(node.inner)
        return None

    def wants_push(self) -> bool:
        """Return whether a tree that is in the directory now asks for pushes."""
        return any(tree.wants_push() for tree in trees_in(self.root.directory))

    def renewables(self) -> Iterator[RenewablePart]:
        """Yield those in the directory and below it."""
        return renewables_in(self.root.directory)

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return the reports of the trees in the directory."""
        return report_of(self.root.directory)

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return a node that the data plane found, of another tree or of a directory by value."""
        if isinstance(directory, GraftNode):
            return directory.beside(directory.graft.tree.adopt(directory.inner, name, identity))
        content: Content | None = None
        if isinstance(directory, DirNode) and asks(directory.directory):
            content = self._answers.shown_as(directory.identity, name, identity.ino)
        elif isinstance(directory, DirNode):
            content = directory.directory.get(name)
        if isinstance(directory, DirNode) and content is not None:
            return self.place(directory, name, content)[0]
        return super().adopt(directory, name, identity)

    @property
    def owner(self) -> tuple[int, int, int]:
        """The owner of entries without one (uid, gid), and the time when the tree was made (ns)."""
        return self._uid, self._gid, self._made_ns

    def place(self, parent: DirNode, name: bytes, content: Content) -> Found:
        """Return the node of a directory's content `name`."""
        if isinstance(content, Tree):
            return self._grafted(parent, name, content)
        if isinstance(content, Blob):
            sources = Sources(self._opener, keep=False)
            runs = content.runs(sources)
            node = EntryNode(content, parent, name, _identity(parent, name, content, sources))
            return node, self._described(node, runs, sources)
        identity = identity_of(parent.identity, name, content.key())
        made: EntryNode
        if isinstance(content, Dir):
            made = DirNode(self, content, parent, name, identity)
        else:
            made = EntryNode(content, parent, name, identity)
        return made, self._plain(made)

    def _found(self, parent: DirNode, name: bytes, content: object) -> Found:
        if content is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.place(parent, name, content_of(content, name))

    async def _asked(self, parent: DirNode, name: bytes, who: Who) -> Found:
        content, ino = await self._answer(parent, name, who)
        node, attributes = await ask_far(lambda: self._found(parent, name, content))
        if ino is not None:
            attributes = msgspec.structs.replace(attributes, ino=ino)
        return node, attributes

    async def _answer(
        self, parent: DirNode, name: bytes, who: Who
    ) -> tuple[object | None, int | None]:
        """Return a policy's answer, and the inode number that the data path shows of it, if any."""
        directory, place = parent.directory, parent.identity
        kept = self._answers.get(place, name, who.uid)
        if kept is not None:
            return kept.content, kept.ino
        drops = self._answers.drops
        found = await directory.lookup(os.fsdecode(name), who)
        if not isinstance(found, Leased):
            return found, None
        _require_leases(directory, found)
        content, ino = found.entry, None
        if self._answers.drops == drops:
            ino = self._values.lease(parent, name, content, found, who.uid)
            self._keep(place, name, who, found, content, ino)
        return content, ino

    def _keep(
        self,
        place: bytes,
        name: bytes,
        who: Who,
        lease: AnswerLease,
        content: Content | None,
        ino: int | None,
    ) -> None:
        ended = self._answers.keep(place, name, who.uid, lease, content, ino)
        if ended is not None:
            uid = None if ended.uid == EVERYONE else ended.uid
            self._values.drop(ended.directory, ended.name, uid)

    async def _listed(self, node: DirNode, who: Who) -> Listing:
        """Ask a dynamic directory for its names, and for each entry unless it gave a mapping."""
        drops = self._answers.drops
        listed = await node.directory.list(who)
        lease = listed if isinstance(listed, LeasedNames) else None
        if lease is not None:
            _require_leases(node.directory, lease)
        names = listed.names if isinstance(listed, LeasedNames) else listed
        if isinstance(names, Mapping):
            return self._mapped(node, names, who, lease if self._answers.drops == drops else None)
        meanings: dict[bytes, Content | Exception | None] = {}
        inos: dict[bytes, int] = {}
        for name in _names(names):
            try:
                found, ino = await self._answer(node, name, who)
                meanings[name] = _content(found)
                if ino is not None:
                    inos[name] = ino
            except OSError as error:
                meanings[name] = error
            except Exception as error:
                LOG.exception("the directory entry %r cannot be looked up", name)
                meanings[name] = OSError(errno.EIO, str(error))
        if lease is not None and self._answers.drops == drops:
            known = await ask_far(lambda: self._known(node, meanings, inos))
            self._values.lease_names(node, known, lease, who.uid)
        found_names = tuple(meanings)
        return DirListing(self, node, found_names, lambda name: _raised(meanings[name]), inos)

    def _mapped(
        self, node: DirNode, listed: Mapping[str, object], who: Who, lease: LeasedNames | None
    ) -> Listing:
        """Return a listing of the entries in a mapping, which the lease of their names covers."""
        by_name = {checked_name(name): name for name in listed}
        if lease is None:
            return DirListing(
                self, node, tuple(by_name), lambda name: _content(listed[by_name[name]])
            )
        entries = {name: content_of(listed[given], given) for name, given in by_name.items()}
        inos = self._values.lease_names(node, entries, lease, who.uid)
        for name, content in entries.items():
            self._keep(node.identity, name, who, lease, content, inos.get(name))
        return DirListing(self, node, tuple(entries), entries.__getitem__, inos)

    def _known(
        self,
        node: DirNode,
        meanings: Mapping[bytes, Content | Exception | None],
        inos: Mapping[bytes, int],
    ) -> dict[bytes, Content | tuple[int, int]]:
        """Return the type and the inode number of each name that was looked up and is there."""
        known: dict[bytes, Content | tuple[int, int]] = {}
        for name, meaning in meanings.items():
            if meaning is None:
                continue
            kind, ino = stat.S_IFREG, inos.get(name)
            if not isinstance(meaning, Exception):
                kind = meaning.kind if isinstance(meaning, Entry) else stat.S_IFDIR
                if ino is None:
                    with contextlib.suppress(OSError):
                        ino = self.place(node, name, meaning)[1].ino
            if ino is None:
                ino = int.from_bytes(identity_of(node.identity, name, "unseen")[:8]) | MADE_INO_BIT
            known[name] = (kind, ino)
        return known

    def _from(self, directory: GraftNode, found: Found) -> Found:
        inner, attributes = found
        return directory.beside(inner), attributes

    async def _from_later(self, directory: GraftNode, answer: Awaitable[Found]) -> Found:
        return self._from(directory, await answer)

    def _grafted(self, parent: DirNode, name: bytes, tree: Tree) -> Found:
        if self._refused is not None:
            tree.refuse_device(*self._refused)
        identity = identity_of(parent.identity, name, ("tree", id(tree)))
        node = GraftNode(Graft(tree, parent, identity), tree.root)
        return node, tree.attributes(tree.root)

    def _acl(self, node: EntryNode) -> bytes:
        """Return the ACL that the files behind a node share; a mode by keyword replaces it."""
        if not isinstance(node.entry, Blob) or node.entry.overrides.mode is not None:
            return b""
        sources = Sources(self._opener, keep=False)
        node.entry.runs(sources)
        _require_same(node, node.entry, sources)
        return sources.acls.pop() if len(sources.acls) == 1 else b""

    def _looked_at(self, node: EntryNode, blob: Blob) -> Attributes:
        sources = Sources(self._opener, keep=False)
        runs = blob.runs(sources)
        _require_same(node, blob, sources)
        return self._described(node, runs, sources)

    def _opened(self, node: EntryNode, blob: Blob) -> BackingFile:
        sources = Sources(self._opener, keep=True)
        try:
            runs = blob.runs(sources)
            _require_same(node, blob, sources)
        except BaseException:
            sources.close()
            raise
        path = blob.overrides.path
        file = BlobFile(sources, runs, path, lambda now: self._described(node, now, sources))
        return MadeFile(file, runs) if runs.are_made else file

    def _described(self, node: EntryNode, runs: Runs, sources: Sources) -> Attributes:
        """Return a file's attributes, from those of the files behind it."""
        mode, atime, mtime, ctime = _MODES[stat.S_IFREG], 0, 0, 0
        for index, status in enumerate(sources.statuses):
            found = status.attributes
            mode = found.mode & (mode if index else 0o777)
            atime, mtime = max(atime, found.atime_ns), max(mtime, found.mtime_ns)
            ctime = max(ctime, found.ctime_ns)
        if len(sources.acls) > 1:
            # One ACL cannot say who may read each of several files.
            mode &= stat.S_IRWXU
        if not mtime:
            made = node.entry.created_ns if isinstance(node.entry, Bytes) else self._made_ns
            atime = mtime = ctime = made
        return self._shown(node, mode, runs.size, blocks_of(runs), (atime, mtime, ctime))

    def _plain(self, node: EntryNode) -> Attributes:
        """Return the attributes of what has no files behind it."""
        entry = node.entry
        size, made = 0, self._made_ns
        if isinstance(entry, Dir):
            made = entry.changed_ns
        elif isinstance(entry, Symlink):
            size = len(entry.target)
        return self._shown(node, _MODES[entry.kind], size, 0, (made, made, made))

    def _shown(
        self, node: EntryNode, mode: int, size: int, blocks: int, times: tuple[int, int, int]
    ) -> Attributes:
        entry, given = node.entry, node.entry.overrides
        atime, mtime, ctime = times
        links = 1
        if isinstance(entry, Dir):
            below = entry.directories()
            links = 1 if below is None else 2 + below  # 1: find(1) must not count on it
        return Attributes(
            ino=node.ino,
            mode=entry.kind | (mode if given.mode is None else given.mode),
            nlink=links,
            uid=self._uid if given.uid is None else given.uid,
            gid=self._gid if given.gid is None else given.gid,
            rdev=0,
            size=size,
            blksize=BLOCK_BYTES,
            blocks=blocks,
            atime_ns=atime,
            mtime_ns=mtime if given.mtime_ns is None else given.mtime_ns,
            ctime_ns=ctime,
        )


def _identity(parent: DirNode, name: bytes, blob: Blob, sources: Sources) -> bytes:
    return identity_of(parent.identity, name, (blob.key(), sources.stamp()))


def _require_same(node: EntryNode, blob: Blob, sources: Sources) -> None:
    """Raise ESTALE where other files are behind a node: the kernel then looks its name up again."""
    assert node.parent is not None, "only the root has no parent, and it is a directory"
    if _identity(node.parent, node.name, blob, sources) != node.identity:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def _require_leases(directory: Dir, answer: AnswerLease) -> None:
    if not directory.leases:
        what = f"{type(directory).__qualname__} returns {type(answer).__name__}"
        raise TypeError(f"{what}: set leases = True")


def _content(value: object) -> Content | None:
    return None if value is None else content_of(value)


def _unchanging(names: Iterable[bytes]) -> Sequence[bytes]:
    """Return names as they are now; what cannot change may stay what it is, a million names say."""
    if isinstance(names, Sequence) and not isinstance(names, MutableSequence):
        return names
    return tuple(names)


def _raised(meaning: Content | Exception | None) -> Content | None:
    if isinstance(meaning, Exception):
        raise meaning
    return meaning


def _names(listed: Iterable[str]) -> list[bytes]:
    """Return names as the kernel has them, each once."""
    if isinstance(listed, str | bytes):
        raise TypeError(f"list() must return names, not {listed!r}")
    return list(dict.fromkeys(checked_name(name) for name in listed))


async def _listed_later(directory: GraftNode, answer: Awaitable[Listing]) -> Listing:
    return GraftListing(directory, await answer)


def _short(name: bytes) -> bytes:
    if len(name) > NAME_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return name


def _own(node: Node) -> EntryNode:
    if not isinstance(node, EntryNode):
        raise TypeError(f"not a node of a virtual tree: {node!r}")
    return node


def _directory(node: Node) -> DirNode:
    if isinstance(node, DirNode):
        return node
    number = errno.ENOTDIR if isinstance(node, EntryNode) else errno.ESTALE
    raise OSError(number, os.strerror(number))
