"""Describes a static `Dir` by values, so that the data path answers without asking.

The mount describes all entries of a `Dir` and of each `Dir` below it once, and each change later.
Some names the data path forwards to Python: `Computed` bytes, other trees, dynamic directories, and
entries whose class the program defines.

Belongs to the trio thread of the mount that shows the tree.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from zcfuse.datapath import ENTRY_KINDS, TERM_KINDS
from zcfuse.tree._bytes import Bytes
from zcfuse.tree._content import Blob, Concat, File, Slice, Zeros
from zcfuse.tree._dir import Dir
from zcfuse.tree._entry import LARGEST, Content, Entry, Symlink
from zcfuse.tree._leased import AnswerLease, LeasedNames
from zcfuse.tree._sources import LOG
from zcfuse.tree._types import (
    WHOLE_FILE,
    DescribedRoot,
    DescribedTree,
    EntryDescription,
    GivenValues,
    IndexSink,
    Node,
    Term,
)
from zcfuse.tree.virtual._nodes import DirNode, identity_of

if TYPE_CHECKING:
    from zcfuse.tree.virtual._tree import VirtualTree

_DIRECTORY, _SYMLINK, _BLOB, _HANDED_UP, _MISSING = ENTRY_KINDS
_KNOWN: Final = 0  # a name whose answer may be there already
_FILE, _MEMORY, _ZEROS, _SLICE, _CONCAT = TERM_KINDS

_BATCH: Final = 4096
_KEY_BYTES: Final = 8


class _Place:
    """A directory that the data path knows by number, and the directories below it.

    These are by name, and by the user for whom a policy leased them.
    """

    __slots__ = ("below", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.below: dict[bytes, dict[int | None, DirNode]] = {}


class DescribedDir(DescribedTree):
    """Describes the directory that a tree shows."""

    def __init__(self, tree: VirtualTree) -> None:
        self._tree = tree
        self._sink: IndexSink | None = None
        self._places: dict[DirNode, _Place] = {}
        self._asking: dict[bytes, DirNode] = {}
        self._by_python = 0

    @property
    def forwarded(self) -> int:
        """The number of entries described so far that only Python can answer for."""
        return self._by_python + len(self._asking)

    def root(self) -> DescribedRoot:
        """Return the attributes and the key of the root itself."""
        directory = self._tree.root.directory
        uid, gid, made_ns = self._tree.owner
        return DescribedRoot(
            uid,
            gid,
            made_ns,
            _given(directory),
            _key(directory),
            directory.changed_ns,
            asks(directory),
        )

    def publish(self, sink: IndexSink) -> None:
        """Describe all entries to `sink`, and each change from now on."""
        self._sink = sink
        self._places.clear()
        self._asking.clear()
        self._fill(sink, self._tree.root, 0)

    def withdraw(self) -> None:
        """Stop describing changes."""
        self._sink = None
        self._places.clear()

    def number(self, node: Node) -> int | None:
        """Return the number of a described directory, None for any other node."""
        place = self._places.get(node) if isinstance(node, DirNode) else None
        return None if place is None else place.number

    def changed(self, node: DirNode, name: bytes) -> None:
        """Describe the new meaning of `name`. After any failure Python answers everything."""
        sink, place = self._sink, self._places.get(node)
        if sink is None or place is None:
            return
        try:
            for child in place.below.pop(name, {}).values():
                self._drop(child)
            self._describe(sink, node, place, name)
        except Exception:
            LOG.exception("a change of a directory cannot be described to the data path")
            self.withdraw()
            sink.failed()

    def lease(
        self, node: DirNode, name: bytes, content: Content | None, lease: AnswerLease, uid: int
    ) -> int | None:
        """Describe an answer that a user got; None: the name is missing.

        Returns the inode number that clients see, or None if Python must go on answering.
        """
        node = self._asking.get(node.identity, node)
        sink, place = self._sink, self._places.get(node)
        if sink is None or place is None:
            return None
        whose = None if lease.for_everyone else uid
        try:
            spec = self._answer(node, place, name, content, whose)
            if spec[1] == _HANDED_UP:
                sink.drop(place.number, name, whose)
                return None
            changed_ns = node.directory.changed_ns
            number = sink.put(
                place.number, [spec], changed_ns, uid=whose, valid_ms=_milliseconds(lease)
            )[0]
            self._fill_answer(sink, node, place, name, content, whose, spec, number)
            return None if content is None else sink.ino(number) or None
        except Exception:
            self._fail(sink)
            return None

    def lease_names(
        self,
        node: DirNode,
        names: Mapping[bytes, Content | tuple[int, int]],
        lease: LeasedNames,
        uid: int,
    ) -> dict[bytes, int]:
        """Describe the names that a user got, each with its leased entry or its type and number.

        Returns the inode numbers that clients see, of those names that have one.
        """
        node = self._asking.get(node.identity, node)
        sink, place = self._sink, self._places.get(node)
        if sink is None or place is None:
            return {}
        whose = None if lease.for_everyone else uid
        try:
            specs = [
                (name, _KNOWN, None, 0, 0, known)
                if isinstance(known, tuple)
                else self._answer(node, place, name, known, whose)
                for name, known in names.items()
            ]
            numbers = sink.list(
                place.number,
                specs,
                node.directory.changed_ns,
                uid=whose,
                valid_ms=_milliseconds(lease),
                complete=lease.complete,
            )
            inos: dict[bytes, int] = {}
            for (name, content), spec, number in zip(names.items(), specs, numbers, strict=True):
                if not isinstance(content, tuple):
                    self._fill_answer(sink, node, place, name, content, whose, spec, number)
                inos[name] = sink.ino(number)
            return {name: ino for name, ino in inos.items() if ino}
        except Exception:
            self._fail(sink)
            return {}

    def drop(self, directory: bytes, name: bytes, uid: int | None) -> None:
        """End a leased answer."""
        node = self._asking.get(directory)
        place = None if node is None else self._places.get(node)
        if self._sink is not None and place is not None:
            self._sink.drop(place.number, name, uid)

    def _fail(self, sink: IndexSink) -> None:
        LOG.exception("a leased answer cannot be described to the data path")
        self.withdraw()
        sink.failed()

    def _answer(
        self,
        node: DirNode,
        place: _Place,
        name: bytes,
        content: Content | None,
        whose: int | None,
    ) -> EntryDescription:
        """Describe a policy's answer. A directory that is the same as before stays."""
        if content is None:
            return name, _MISSING, None, 0, 0, None
        spec = self._entry(node, name, content)
        if spec[1] != _DIRECTORY:
            return spec
        before = place.below.get(name, {}).get(whose)
        stays = before is not None and _is_same(before.directory, content)
        return (*spec[:5], (asks(content), stays))

    def _fill_answer(
        self,
        sink: IndexSink,
        node: DirNode,
        place: _Place,
        name: bytes,
        content: Content | None,
        whose: int | None,
        spec: EntryDescription,
        number: int,
    ) -> None:
        """Describe what is below a policy's answer, which the data path knows by a number."""
        below = place.below.get(name, {})
        before = below.get(whose)
        known = None if before is None else self._places.get(before)
        if before is not None and known is not None and known.number == number:
            if spec[1] == _DIRECTORY and content is not None:
                before.merge(DirNode(self._tree, _dir(content), node, name, before.identity))
            return
        self._drop(below.pop(whose, None))
        if content is not None and is_described(content):
            self._fill(sink, self._child(node, place, name, content, whose), number)

    def _describe(self, sink: IndexSink, node: DirNode, place: _Place, name: bytes) -> None:
        directory = node.directory
        content = None if asks(directory) else directory.get(name)
        if content is None:
            sink.remove(place.number, name, directory.changed_ns)
            return
        numbers = sink.put(place.number, [self._entry(node, name, content)], directory.changed_ns)
        if is_described(content):
            self._fill(sink, self._child(node, place, name, content), numbers[0])

    def _fill(self, sink: IndexSink, top: DirNode, number: int) -> None:
        """Describe everything below the directory `number` of the data path."""
        left = [(top, number)]
        while left:
            node, number = left.pop()
            place = self._places[node] = _Place(number)
            directory = node.directory
            if asks(directory):
                self._asking[node.identity] = node
                continue
            entries = _entries(directory)
            while batch := list(islice(entries, _BATCH)):
                specs = [self._entry(node, name, content) for name, content in batch]
                numbers = sink.put(number, specs, directory.changed_ns)
                for (name, content), found in zip(batch, numbers, strict=True):
                    if is_described(content):
                        left.append((self._child(node, place, name, content), found))

    def _child(
        self,
        node: DirNode,
        place: _Place,
        name: bytes,
        content: Content,
        whose: int | None = None,
    ) -> DirNode:
        identity = identity_of(node.identity, name, _dir(content).key())
        child = DirNode(self._tree, _dir(content), node, name, identity)
        place.below.setdefault(name, {})[whose] = child
        return child

    def _drop(self, node: DirNode | None) -> None:
        left = [] if node is None else [node]
        while left:
            at = left.pop()
            if self._asking.get(at.identity) is at:
                del self._asking[at.identity]
            place = self._places.pop(at, None)
            if place is not None:
                for children in place.below.values():
                    left.extend(children.values())

    def _entry(self, node: DirNode, name: bytes, content: Content) -> EntryDescription:
        if is_described(content):
            assert isinstance(content, Dir)
            key, changed_ns = _key(content), content.changed_ns
            return name, _DIRECTORY, _given(content), key, changed_ns, (asks(content), False)
        if type(content) is Symlink and _fits(content):
            return name, _SYMLINK, _given(content), 0, 0, content.target
        terms = _terms(content) if isinstance(content, Blob) and _fits(content) else None
        if terms is None:
            return name, _HANDED_UP, None, 0, 0, self._forwarded(node, name, content)
        assert isinstance(content, Blob)
        has_memory = any(term[0] == _MEMORY for term in terms)
        made_ns = content.created_ns if isinstance(content, Bytes) else 0
        key = _key(content) if has_memory else 0
        return name, _BLOB, _given(content), key, made_ns, tuple(terms)

    def _forwarded(self, node: DirNode, name: bytes, content: Content) -> tuple[int, int]:
        """Return the type and the inode number of an entry that Python answers for."""
        self._by_python += 1
        kind = content.kind if isinstance(content, Entry) else stat.S_IFDIR
        try:
            _, attributes = self._tree.place(node, name, content)
        except Exception:
            LOG.debug("%r cannot be looked at yet", name, exc_info=True)
            return kind, int.from_bytes(identity_of(node.identity, name, "unseen")[:_KEY_BYTES])
        return kind, attributes.ino


def _dir(content: Content) -> Dir:
    assert isinstance(content, Dir)
    return content


def _is_same(before: Dir, now: Content) -> bool:
    """Whether the data path knows all of a directory that a policy answers again."""
    return before is now or (asks(before) and asks(now) and before.key() == _dir(now).key())


def _milliseconds(lease: AnswerLease) -> int | None:
    # A millisecond at least: 0 would be no time at all.
    return None if lease.valid_for is None else max(1, round(lease.valid_for * 1000))


def _entries(directory: Dir) -> Iterator[tuple[bytes, Content]]:
    for name in directory.names():
        content = directory.get(name)
        if content is not None:
            yield name, content


def by_value(content: object) -> bool:
    """Whether it is a directory whose entries can be described."""
    return isinstance(content, Dir) and content.by_value and _fits(content)


def asks(content: object) -> bool:
    """Whether it is a dynamic directory whose leased answers can be described."""
    return isinstance(content, Dir) and content.dynamic and content.leases and _fits(content)


def is_described(content: object) -> bool:
    """Whether the data path knows it as a directory."""
    return by_value(content) or asks(content)


def _fits(entry: Entry) -> bool:
    """Whether the data path can hold the time that the entry was given."""
    given = entry.overrides.mtime_ns
    return given is None or -LARGEST <= given <= LARGEST


def _given(entry: Entry) -> GivenValues | None:
    return None if entry.is_plain else msgspec.structs.astuple(entry.overrides)


def _key(entry: Entry) -> int:
    digest = hashlib.blake2b(repr(entry.key()).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())


def _terms(blob: Blob) -> list[Term] | None:
    """Return the terms of a blob in prefix order; None where a part has another class."""
    kind = type(blob)
    if kind is File:
        assert isinstance(blob, File)
        return [(_FILE, 0, WHOLE_FILE, blob.file)]
    if isinstance(blob, Bytes) and kind is Bytes:
        place = blob.place
        return [(_MEMORY, place.offset, blob.size, place.memory.fd, place.whole)]
    if isinstance(blob, Zeros) and kind is Zeros:
        return [(_ZEROS, 0, blob.length)]
    if isinstance(blob, Slice) and kind is Slice:
        length = WHOLE_FILE if blob.length is None else blob.length
        return _joined((_SLICE, blob.offset, length), [blob.of])
    if isinstance(blob, Concat) and kind is Concat:
        return _joined((_CONCAT, 0, 0, len(blob.parts)), list(blob.parts))
    return None


def _joined(first: Term, parts: list[Blob]) -> list[Term] | None:
    found = [first]
    for part in parts:
        terms = _terms(part)
        if terms is None:
            return None
        found += terms
    return found
