"""A tree that shows several layers as one, the first on top of the others.

It understands the marks of overlayfs and OCI images: whiteouts, opaque directories, metacopy and
redirect. A layer is a directory or a tree. A mirror shows a directory, with a mirror's promises: it
follows no symbolic link, stays inside the layer, and keeps no descriptor for a node.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NoReturn

from zcfuse.arguments import PATHS, require_one_of, require_type
from zcfuse.datapath import backing_xattr, is_reserved, shown_xattrs
from zcfuse.linux import Capability, has_initial_capability
from zcfuse.tree._dir import Dir, TreeLike
from zcfuse.tree._file import RegularFile
from zcfuse.tree._later import answered
from zcfuse.tree._overrides import overrides
from zcfuse.tree._renewal import COHERENCE, RenewablePart
from zcfuse.tree._report import joined_reports
from zcfuse.tree._types import (
    Answer,
    Attributes,
    BackingFile,
    Identity,
    Lease,
    Listing,
    Node,
    StatFs,
    Tree,
    Who,
)
from zcfuse.tree._union_file import MetacopyFile, is_all_hole
from zcfuse.tree._union_layer import AnyLayer, Layer
from zcfuse.tree._union_listing import UnionListing
from zcfuse.tree._union_nodes import UnionNode, merged_attributes, node_of
from zcfuse.tree._union_search import LayerDirectory, SearchResult, search
from zcfuse.tree._union_tree_layer import TreeLayer
from zcfuse.tree._union_upper import Upper
from zcfuse.tree.virtual import VirtualTree

LOG: Final = logging.getLogger("zcfuse.tree")

# A subclass that overrides this still answers like a union.
_FREE: Final = frozenset({"lease_layers"})


class Union(Tree):
    """Shows `layers` merged, the topmost first.

    Parameters:
        layers: at least one: paths of separate directories, and trees such as an `Archive` or a
            `Dir`, which the caller owns.
        upper: the path of a directory that lies on top of them. What clients change goes there, if
            the mount is writable (`MountOptions.rw`).
        work: an empty directory on the same filesystem, for files on their way to the upper layer;
            None: one beside it, with `.work` behind its name.
        metacopy: a changed mode, owner, time or extended attribute of a file copies no bytes to the
            upper layer before the first write. Overlayfs then needs its option metacopy=on.
        redirect_dir: clients may rename a directory of a layer. Its copy in the upper layer then
            says where the layers have it, as that of overlayfs with its option redirect_dir=on.
        trusted: whether the process sees `trusted.overlay.` attributes; None: find out. If it does
            not, a file that is one hole may be a metacopy, and an open of it fails with EIO.
        coherence: that of `MountOptions` for this union alone; None: the mount's. A layer's own
            does not count.

    Raises:
        OSError: a layer cannot be opened; ELOOP: layers overlap; EBUSY: another mount has the upper
            layer; EXDEV: the work directory lies on another filesystem.
        ValueError: there is no layer, or no such coherence; metacopy or redirect_dir in a process
            that does not see their marks.
    """

    root: UnionNode

    def __init__(
        self,
        layers: Sequence[TreeLike],
        *,
        upper: str | bytes | os.PathLike[str] | None = None,
        work: str | bytes | os.PathLike[str] | None = None,
        metacopy: bool = False,
        redirect_dir: bool = False,
        openat2: bool = True,
        trusted: bool | None = None,
        coherence: str | None = None,
    ) -> None:
        if isinstance(layers, str | bytes | os.PathLike) or not layers:
            raise ValueError(f"layers: a union needs a list of one layer at least, not {layers!r}")
        require_type("layers", layers, Sequence, "a list of trees and directories")
        for layer_given in layers:
            require_type("layers", layer_given, (Tree, Dir, *PATHS), "trees and directories")
        require_type("openat2", openat2, bool, "True or False")
        require_one_of("coherence", coherence, COHERENCE)
        require_type("trusted", trusted, bool | None, "True, False or None")
        require_type("upper", upper, (*PATHS, type(None)), "a path or None")
        require_type("work", work, (*PATHS, type(None)), "a path or None")
        if work is not None and upper is None:
            raise ValueError("work: it is of an upper layer: name that too")
        require_type("metacopy", metacopy, bool, "True or False")
        require_type("redirect_dir", redirect_dir, bool, "True or False")
        self._trusted = has_initial_capability(Capability.SYS_ADMIN) if trusted is None else trusted
        self.coherence = coherence
        for name, wanted in (("metacopy", metacopy), ("redirect_dir", redirect_dir)):
            if wanted and (upper is None or not self._trusted):
                raise ValueError(f"{name}: it needs an upper layer and CAP_SYS_ADMIN")
        self._metacopy, self._redirect_dir = metacopy, redirect_dir
        self._upper = None if upper is None else Upper(upper, work)
        self._below = [_path_of(layer) for layer in layers]
        if upper is not None:
            layers = [upper, *layers]
        self._of = f" of {len(layers)} layers"
        self._layers: list[AnyLayer] = []
        try:
            for index, source in enumerate(layers):
                numbers_of = self._layers[0].device if index else None
                lowest = index == len(layers) - 1
                layer = _layer_of(source, index, numbers_of, lowest=lowest, openat2=openat2)
                try:
                    _require_apart(layer, source, self._layers)
                finally:
                    self._layers.append(layer)
        except BaseException:
            self.close()
            raise
        self.stacked = any(layer.stacked for layer in self._layers)
        self.waits = any(isinstance(one, Tree) and one.waits for one in layers)
        self.root = UnionNode(None, b"", _root_parts(self._layers))

    def refuse_device(self, major: int, minor: int) -> None:
        """Raise ELOOP for files on this device, and never send it a request."""
        for layer in self._layers:
            layer.refuse_device(major, minor)

    def renewables(self) -> Iterator[RenewablePart]:
        """Yield the archives that are layers; a `Dir` that is one notifies no union."""
        for layer in self._layers:
            parts = layer.tree.renewables() if isinstance(layer, TreeLayer) else ()
            for part in parts:
                if part.tell is None:
                    yield replace(part, coherence=self.coherence)

    def take_over(self) -> None:
        """Merge the present roots of the layers."""
        for layer in self._layers:
            if isinstance(layer, TreeLayer):
                layer.tree.take_over()
        self.root = UnionNode(None, b"", _root_parts(self._layers))

    def lookup(self, directory: Node, name: bytes) -> tuple[Node, Attributes]:
        """Return the present meaning of `name` in `directory`."""
        parent = _own(directory)
        if name == b".":
            return parent, self.attributes(parent)
        if name == b"..":
            above = parent.parent or parent
            return above, self.attributes(above)
        if not name or b"/" in name or b"\0" in name or is_reserved(name):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self._entry(parent, self._entered(parent), name)

    def lookup_for(self, directory: Node, name: bytes, who: Who) -> Answer[tuple[Node, Attributes]]:
        """Return what `lookup` does; an awaitable of it if a layer's server has to be asked."""
        return answered(lambda: self.lookup(directory, name))

    def attributes(self, node: Node) -> Attributes:
        """Return the attributes of the topmost part."""
        shown = _own(node)
        top = shown.top.layer.attributes(shown.top.node)
        data = None if shown.data is None else shown.data.layer.attributes(shown.data.node)
        return merged_attributes(top, len(shown.parts), data)

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        top = _own(node).top
        return top.layer.readlink(top.node)

    def open(self, node: Node) -> BackingFile:
        """Open a regular file.

        Raises OSError: EIO if it may be a metacopy, and this process cannot see the mark.
        """
        shown = _own(node)
        file = shown.top.layer.open(shown.top.node)
        try:
            if shown.data is not None:
                data = shown.data.layer.open(shown.data.node)
                assert isinstance(data, RegularFile)  # a tree has no metacopies, nor data for them
                return MetacopyFile(file, data)
            if not self._trusted and isinstance(file, RegularFile) and is_all_hole(file):
                _refuse(
                    shown.top.layer, shown.name, "it may be a metacopy, which only root can see"
                )
        except BaseException:
            file.close()
            raise
        return file

    def listing(self, node: Node) -> Listing:
        """Return the names that the directory has in any layer now."""
        return UnionListing(self, _own(node))

    def listing_for(self, node: Node, who: Who) -> Answer[Listing]:
        """Return what `listing` does; an awaitable of it if a layer's server has to be asked."""
        return answered(lambda: self.listing(node))

    def statfs(self) -> StatFs:
        """Return the state of the top layer's filesystem."""
        return self._layers[0].statfs()

    def getxattr(self, node: Node, name: bytes) -> bytes:
        """Return an extended attribute of the topmost part; a layer's marks do not count."""
        top = _own(node).top
        return top.layer.getxattr(top.node, backing_xattr(name))

    def listxattr(self, node: Node) -> Sequence[bytes]:
        """Return the names of the extended attributes of the topmost part."""
        top = _own(node).top
        return shown_xattrs(list(top.layer.listxattr(top.node)))

    def lease_layers(self) -> Sequence[Lease]:
        """Return the leases of the layers, unless a subclass overrides any answer.

        Returns none of them if the data plane cannot answer for one, for example for a policy.
        """
        if overrides(self, Union, _FREE):
            return ()
        leases = [part.layer.lease_root() for part in self.root.parts]
        usable = [lease for lease in leases if lease is not None and not lease.kept]
        return usable if len(usable) == len(leases) else ()

    @property
    def sees_trusted(self) -> bool:
        """Whether the process sees all marks, not only those of ordinary users."""
        return self._trusted

    def lease_of(self, node: Node) -> Lease | None:
        """Return the layers as the root's lease, if `lease_layers` returns any."""
        layers = self.lease_layers() if node is self.root else ()
        if not layers:
            return None
        work = -1 if self._upper is None else self._upper.fd
        return Lease(
            layers[0].fd,
            layers=layers,
            sees_trusted=self.sees_trusted,
            work=work,
            metacopies=self._metacopy,
            redirects=self._redirect_dir,
            coherence=self.coherence,
        )

    def adopt(self, directory: Node, name: bytes, identity: Identity) -> Node:
        """Return the node of a file that the data plane found below the root."""
        parent = _own(directory)
        at = next((part for part in parent.parts if part.layer.index == identity.layer), None)
        if at is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        adopted = at.layer.adopt(at.node, name, identity)
        with contextlib.suppress(OSError):
            node, _ = self.lookup(parent, name)
            # A directory that was copied up goes by the part below the copy.
            for part in _own(node).parts:
                same = part.layer.index == identity.layer
                if same and part.node.identity == adopted.identity:
                    return node
        return UnionNode(parent, name, (LayerDirectory(at.layer, adopted),))

    def describe(self, node: Node) -> str:
        """Return its layer, or the number of merged directories."""
        shown = _own(node)
        top = shown.top
        where = os.fsdecode(top.layer.place(top.node))
        of = f"layer {top.layer.index + 1} of {len(self._layers)}: {where}"
        if len(shown.parts) > 1:
            return f"union of {len(shown.parts)} directories, on top that of {of}"
        if shown.data is not None:
            data = shown.data
            found = os.fsdecode(data.layer.place(data.node))
            return f"metacopy in {of}; its bytes are in layer {data.layer.index + 1}: {found}"
        return f"union, file of {of}"

    def real_path(self, node: Node) -> bytes | None:
        """Return the path of the file that has the bytes, if a directory is the layer of it."""
        if type(self).open is not Union.open or not self._trusted:
            return None
        shown = _own(node)
        part = shown.data or shown.top
        return part.layer.place(part.node) if isinstance(part.layer, Layer) else None

    def top_path(self, node: Node) -> bytes | None:
        """Return the path of what has the attributes, if a directory is the layer of it."""
        top = _own(node).top
        return top.layer.place(top.node) if isinstance(top.layer, Layer) else None

    def report(self) -> Mapping[str, Mapping[str, object]]:
        """Return the upper layer with the layers below it, and the reports of trees as layers.

        A layer that is no directory is None.
        """
        sections = joined_reports(layer.report() for layer in self._layers)
        if self._upper is not None:
            sections["unions"] = {self._upper.path: self._below}
        return sections

    def close(self) -> None:
        """Close the layers; open files and listings can still use their own descriptors."""
        for layer in self._layers:
            layer.close()
        if self._upper is not None:
            self._upper.close()

    def _entered(self, directory: UnionNode) -> list[LayerDirectory]:
        """Open the parts of a directory to look at its entries."""
        return [part.opened() for part in directory.parts]

    def _entry(
        self, directory: UnionNode, parts: Sequence[LayerDirectory], name: bytes
    ) -> tuple[UnionNode, Attributes]:
        """Return the meaning of `name` in `directory`, whose parts `entered` has opened.

        Raises OSError: EIO if a part of it lies elsewhere and cannot be used; the log gives the
        reason.
        """
        found = search(parts, self.root.parts, name)
        if found.refused:
            _refuse(found.pieces[0].layer, name, found.refused)
        return node_of(directory, name, found), _attributes_of(found)


def _path_of(layer: TreeLike) -> str | None:
    return None if isinstance(layer, Tree | Dir) else os.path.abspath(os.fsdecode(layer))


def _layer_of(
    source: TreeLike, index: int, numbers_of: int | None, *, lowest: bool, openat2: bool
) -> AnyLayer:
    if isinstance(source, Dir):
        return TreeLayer(VirtualTree(source), index, lowest=lowest, owned=True)
    if isinstance(source, Tree):
        return TreeLayer(source, index, lowest=lowest)
    return Layer(source, index, numbers_of, openat2=openat2)


def _root_parts(layers: Sequence[AnyLayer]) -> tuple[LayerDirectory, ...]:
    """Return the layers down to the first with a root that an image made opaque."""
    last = next((layer.index for layer in layers if layer.is_opaque()), len(layers) - 1)
    return tuple(LayerDirectory(layer, layer.root) for layer in layers[: last + 1])


def _own(node: Node) -> UnionNode:
    if not isinstance(node, UnionNode):
        raise TypeError(f"not a node of a union: {node!r}")
    return node


def _attributes_of(found: SearchResult) -> Attributes:
    data = None if found.data is None else found.data.attributes
    return merged_attributes(found.pieces[0].attributes, len(found.pieces), data)


def _refuse(layer: AnyLayer, name: bytes, reason: str) -> NoReturn:
    LOG.warning("%r in layer %d is refused: %s", name, layer.index, reason)
    raise OSError(errno.EIO, reason, name)


def _require_apart(layer: AnyLayer, source: TreeLike, others: Sequence[AnyLayer]) -> None:
    """Raise ELOOP if a layer overlaps with another."""
    above = layer.above()
    for other in others:
        theirs = other.above()
        if not (above and theirs):
            continue
        if theirs[0] in above or above[0] in theirs:
            raise OSError(errno.ELOOP, "the layer overlaps with another", source)
