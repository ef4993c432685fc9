"""A tree without the names that patterns hide, and with some under other names.

The data plane applies the same compiled patterns to the trees that it answers for. This module
applies them to everything that Python answers. A Filter belongs to the task of its tree.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from zcfuse.arguments import PATHS, require_type
from zcfuse.tree._dir import Dir, TreeLike
from zcfuse.tree._later import answered
from zcfuse.tree._mirror import Mirror
from zcfuse.tree._near import ask_far
from zcfuse.tree._renewal import RenewablePart
from zcfuse.tree._types import (
    Answer,
    Attributes,
    BackingFile,
    DescribedRoot,
    DescribedTree,
    Found,
    Identity,
    IndexSink,
    Lease,
    Listing,
    Node,
    StatFs,
    Tree,
    Who,
)
from zcfuse.tree.virtual import VirtualTree

if TYPE_CHECKING:
    from zcfuse.datapath import NamePatterns

_MISSING: Final = frozenset({errno.ENOENT, errno.ENAMETOOLONG})
_DOTS: Final = frozenset({b".", b".."})


class FilterNode(Node):
    """A node of the tree beneath, and its path there from the root."""

    __slots__ = ("inner", "parent", "path")

    def __init__(self, inner: Node, parent: FilterNode | None, path: bytes) -> None:
        self.inner = inner
        self.parent = parent
        self.path = path

    @property
    def identity(self) -> Hashable:  # type: ignore[override]  # a property serves where it is read
        """The identity of the node beneath."""
        return self.inner.identity

    @property
    def volatile(self) -> bool:  # type: ignore[override]
        """Whether the node beneath is volatile."""
        return self.inner.volatile

    def merge(self, other: Node) -> None:
        """Let the node beneath learn from the other's."""
        if isinstance(other, FilterNode) and other.inner is not self.inner:
            self.inner.merge(other.inner)

    def below(self, name: bytes, inner: Node) -> FilterNode:
        """Return the node that has a name in this directory, beneath."""
        return FilterNode(inner, self, self.path + b"/" + name if self.path else name)


class Filter(Tree):
    """Shows `tree` without some names, and some under new names.

    A pattern has ``*``, ``?`` and ``[...]``, none of which matches a ``/``; a backslash takes the
    meaning from the character behind it. A pattern without a ``/`` is for a name at any depth, one
    with a ``/`` for a path from the root, and one with a ``/`` at its end for directories only.
    Patterns are compared with the names that `tree` has. A hidden directory hides all below it.

    Parameters:
        tree: a Tree, which stays the caller's, a `Dir`, or the path of a directory.
        hide: patterns of hidden names.
        show: patterns of names that stay visible although `hide` matches them.
        rename: new names by old names. An old name is exact, or a pattern with one ``*``, which
            stands for the same text in the new name. The first that fits counts. Of names that
            become equal, a name that was not renamed is shown, otherwise that of the first rule.

    Raises:
        OSError: a path is given, and the directory cannot be opened.
        TypeError: `hide` or `show` is one text, or a pattern is no text.
        ValueError: a pattern cannot match; the message names it.
    """

    root: FilterNode

    def __init__(
        self,
        tree: TreeLike,
        *,
        hide: Iterable[str | bytes] = (),
        show: Iterable[str | bytes] = (),
        rename: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    ) -> None:
        require_type("tree", tree, (Tree, Dir, *PATHS), "a tree or a directory")
        self._patterns = _compiled(hide, show, {} if rename is None else rename)
        self._renames = self._patterns.renames()
        self._owned = not isinstance(tree, Tree)
        if isinstance(tree, Dir):
            self._tree: Tree = VirtualTree(tree)
        else:
            self._tree = tree if isinstance(tree, Tree) else Mirror(tree)
        self._of = f" of {self._tree!r}"
        self.stacked = bool(getattr(self._tree, "stacked", False))
        self.waits = self._tree.waits
        self.root = FilterNode(self._tree.root, None, b"")

    def lookup(self, directory: Node, name: bytes) -> Found:
        """Return the node that is shown as `name`."""
        parent = _own(directory)
        if name in _DOTS:
            node = parent if name == b"." else parent.parent or parent
            return node, self.attributes(node)
        for original in self._originals(parent, name):
            try:
                return self._judged(parent, original, self._tree.lookup(parent.inner, original))
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def lookup_for(self, directory: Node, name: bytes, who: Who) -> Answer[Found]:
        """Return what is shown as `name` to the process that asks."""
        if _own(directory).volatile and name not in _DOTS:
            return self._lookup_later(_own(directory), name, who)
        return answered(lambda: self.lookup(directory, name))

    async def _lookup_later(self, parent: FilterNode, name: bytes, who: Who) -> Found:
        for original in self._originals(parent, name):
            try:
                ask = functools.partial(self._tree.lookup_for, parent.inner, original, who)
                answer = await ask_far(ask)
                found = await answer if isinstance(answer, Awaitable) else answer
                return self._judged(parent, original, found)
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    def attributes(self, node: Node) -> Attributes:
        """Return the node's attributes; of a directory no number of directories in it."""
        return _shown(self._tree.attributes(_own(node).inner))

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        return self._tree.readlink(_own(node).inner)

    def may_open(self, node: Node, who: Who) -> Answer[None]:
        """Ask the inner tree."""
        return self._tree.may_open(_own(node).inner, who)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file."""
        return self._tree.open(_own(node).inner)

    def listing(self, node: Node) -> Listing:
        """Return the names that are shown of a directory."""
        return FilterListing(self, _own(node), self._tree.listing(_own(node).inner))

    def listing_for(self, node: Node, who: Who) -> Answer[Listing]:
        """Return the names that are shown of a directory, to the process that asks."""
        answer = self._tree.listing_for(_own(node).inner, who)
        if isinstance(answer, Awaitable):
            return self._listed_later(_own(node), answer)
        return FilterListing(self, _own(node), answer)

    async def _listed_later(self, node: FilterNode, answer: Awaitable[Listing]) -> Listing:
        return FilterListing(self, node, await answer)

    def statfs(self) -> StatFs:
        """Return what the tree beneath says."""
        return self._tree.statfs()

    def part_bytes(self) -> int:
        """Return what the tree beneath says."""
        return self._tree.part_bytes()

    def refuse_device(self, major: int, minor: int) -> None:
        """Answer ELOOP for whatever lies on this device."""
        self._tree.refuse_device(major, minor)

    def wants_push(self) -> bool:
        """Return whether the tree beneath asks for pushes."""
        return self._tree.wants_push()

    def renewables(self) -> Iterator[RenewablePart]:
        """Yield those of the tree beneath."""
        return self._tree.renewables()

    def take_over(self) -> None:
        """Show the present root of the tree beneath."""
        self._tree.take_over()
        self.root = FilterNode(self._tree.root, None, b"")

    def watch(self, changed: Callable[[Node, bytes], None] | None) -> None:
        """Have `changed` called with each name that comes to show something else."""
        if changed is None:
            self._tree.watch(None)
            return

        def tell(directory: Node, name: bytes) -> None:
            node = FilterNode(directory, None, b"")  # known by its identity
            for one in {name, self._patterns.shown(name)}:
                changed(node, one)

        self._tree.watch(tell)

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute."""
        return self._tree.getxattr(_own(node).inner, name)

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes."""
        return self._tree.listxattr(_own(node).inner)

    def lease_of(self, node: Node) -> Lease | None:
        """Return the lease of the tree beneath, with the patterns on top."""
        if type(self) is not Filter:
            return None  # a subclass may answer in its own way
        own = _own(node)
        lease = self._tree.lease_of(own.inner)
        # Names that the tree keeps would be compared with the new names.
        if lease is None or (lease.kept and self._renames):
            return None
        filters = (*lease.filters, (self._patterns, own.path))
        described = None if lease.described is None else _Described(lease.described)
        return msgspec.structs.replace(lease, filters=filters, described=described)

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node that the data plane found under the name that it shows."""
        parent = _own(directory)
        originals = self._patterns.originals(name) or [name]
        chosen = originals[-1]
        if len(originals) > 1:
            chosen = next((one for one in originals if self._is_there(parent, one)), chosen)
        return parent.below(chosen, self._tree.adopt(parent.inner, chosen, identity))

    def describe(self, node: Node) -> str:
        """Return what the tree beneath says, and that it is filtered."""
        return f"{self._tree.describe(_own(node).inner)}, filtered"

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return what the tree beneath has to tell."""
        return self._tree.report()

    def close(self) -> None:
        """Close the tree that the filter made from a path or a `Dir`."""
        if self._owned:
            self._tree.close()

    def shown_entries(
        self, directory: FilterNode, listing: Listing, start: int
    ) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield what is shown of a listing of the tree beneath."""
        winners = self._winners(directory, listing) if self._renames else {}
        for offset, name, inner, attributes in listing.entries(start):
            if name in _DOTS:
                above = directory if name == b"." else directory.parent or directory
                yield offset, name, above, _shown(attributes)
            elif self._hides(directory, name, attributes):
                continue
            else:
                shown = self._patterns.shown(name) if self._renames else name
                if winners.get(shown, name) == name:
                    yield offset, shown, directory.below(name, inner), _shown(attributes)

    def shown_failures(
        self, directory: FilterNode, failures: Mapping[bytes, int]
    ) -> dict[bytes, int]:
        """Return those of a listing of the tree beneath whose names are shown."""
        return {
            self._patterns.shown(name): number
            for name, number in failures.items()
            if not self._patterns.hides(directory.path, name, False)
        }

    def _winners(self, directory: FilterNode, listing: Listing) -> dict[bytes, bytes]:
        """Return which name is shown as each new name."""
        there = {
            name
            for _, name, _, attributes in listing.entries(0)
            if name not in _DOTS and not self._hides(directory, name, attributes)
        }
        new = {self._patterns.shown(name) for name in there}
        return {
            one: next(name for name in self._patterns.originals(one) if name in there)
            for one in new
        }

    def _originals(self, directory: FilterNode, name: bytes) -> Iterator[bytes]:
        """Yield the names that may be shown as `name`, but those that are hidden for certain."""
        for original in self._patterns.originals(name) if self._renames else (name,):
            if not all(
                self._patterns.hides(directory.path, original, is_directory)
                for is_directory in (False, True)
            ):
                yield original

    def _judged(self, parent: FilterNode, name: bytes, found: Found) -> Found:
        inner, attributes = found
        if self._hides(parent, name, attributes):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return parent.below(name, inner), _shown(attributes)

    def _hides(self, directory: FilterNode, name: bytes, attributes: Attributes) -> bool:
        return self._patterns.hides(directory.path, name, stat.S_ISDIR(attributes.mode))

    def _is_there(self, directory: FilterNode, name: bytes) -> bool:
        try:
            self._judged(directory, name, self._tree.lookup(directory.inner, name))
        except OSError:
            return False
        return True


class FilterListing(Listing):
    """A listing of the tree beneath without the hidden names; the offsets stay the same."""

    __slots__ = ("_filter", "_inner", "_node")

    def __init__(self, shown: Filter, node: FilterNode, inner: Listing) -> None:
        self._filter = shown
        self._node = node
        self._inner = inner

    def entries(self, start: int) -> Iterator[tuple[int, bytes, Node, Attributes]]:
        """Yield the entries that are shown, from offset `start`."""
        return self._filter.shown_entries(self._node, self._inner, start)

    def failures(self) -> Mapping[bytes, int]:
        """Return those of the listing beneath that the patterns do not hide."""
        return self._filter.shown_failures(self._node, self._inner.failures())

    def close(self) -> None:
        """Close the listing beneath."""
        self._inner.close()


class _Described(DescribedTree):
    """The description of the tree beneath, for nodes of the filter."""

    def __init__(self, inner: DescribedTree) -> None:
        self._inner = inner

    def root(self) -> DescribedRoot:
        """Return what there is to say of the root."""
        return self._inner.root()

    def publish(self, sink: IndexSink) -> None:
        """Describe all entries, hidden ones too."""
        self._inner.publish(sink)

    @property
    def forwarded(self) -> int:
        """The count of the tree beneath."""
        return self._inner.forwarded

    def number(self, node: Node) -> int | None:
        """Return the sink's number of a directory."""
        return self._inner.number(node.inner if isinstance(node, FilterNode) else node)


def _compiled(
    hide: Iterable[str | bytes],
    show: Iterable[str | bytes],
    rename: Mapping[str, str] | Mapping[bytes, bytes],
) -> NamePatterns:
    from zcfuse.datapath import NamePatterns  # compiled: a tree without a filter needs none

    require_type("rename", rename, Mapping, "a mapping of names")
    new_names = [(_text(old, "rename"), _text(new, "rename")) for old, new in rename.items()]
    return NamePatterns(_texts(hide, "hide"), _texts(show, "show"), new_names)


def _texts(patterns: Iterable[str | bytes], argument: str) -> list[bytes]:
    if isinstance(patterns, str | bytes) or not isinstance(patterns, Iterable):
        raise TypeError(f"{argument}: give a list of patterns, not {patterns!r}")
    return [_text(pattern, argument) for pattern in patterns]


def _text(pattern: object, argument: str) -> bytes:
    if not isinstance(pattern, str | bytes):
        raise TypeError(f"{argument}: a pattern is a str or bytes, not {pattern!r}")
    return os.fsencode(pattern)


def _shown(attributes: Attributes) -> Attributes:
    if not stat.S_ISDIR(attributes.mode):
        return attributes
    return msgspec.structs.replace(attributes, nlink=1)


def _own(node: Node) -> FilterNode:
    if not isinstance(node, FilterNode):
        raise TypeError(f"not a node of a filter: {node!r}")
    return node
