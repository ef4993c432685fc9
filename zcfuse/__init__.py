"""A FUSE filesystem of real files whose bytes never pass through the daemon.

`mount` shows a tree in the filesystem for as long as a trio block runs, `serve` does for programs
without trio. A `Dir` is put together
from files, pieces of files, bytes and other directories; `Mirror` is the tree of one backing
directory, `Union` that of several, merged, `Archive` that of a tar or zip archive, `Remote` that
of a bucket or a server. Subclass `Dir` for a policy of your own: Python is asked for names and
attributes, and once per open; the bytes are served by the data path or by the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.control import Mount, ServedMount, attach, is_waiting, mount, serve
    from zcfuse.engine import KernelServed
    from zcfuse.linux import MountError
    from zcfuse.options import MountOptions
    from zcfuse.remote import Remote
    from zcfuse.tree import (
        WHOLE_FILE,
        Attributes,
        BackingFile,
        Bytes,
        Computed,
        Concat,
        Dir,
        Entry,
        Extent,
        File,
        Filter,
        Hint,
        Leased,
        LeasedNames,
        Listing,
        Mirror,
        Node,
        Placement,
        Pool,
        Slice,
        StatFs,
        Symlink,
        Tree,
        Union,
        Who,
        Zeros,
    )
    from zcfuse.tree.archive import Archive, ArchiveError
    from zcfuse.tree.manifest import ManifestDir, ManifestError, load_manifest
else:
    # Most commands need no tree, and a tree alone needs no event loop and no parsers of archives.
    __getattr__ = lazy(
        __name__,
        {
            "control": ("Mount", "ServedMount", "attach", "is_waiting", "mount", "serve"),
            "engine": ("KernelServed",),
            "linux": ("MountError",),
            "options": ("MountOptions",),
            "remote": ("Remote",),
            "tree": (
                "WHOLE_FILE",
                "Attributes",
                "BackingFile",
                "Bytes",
                "Computed",
                "Concat",
                "Dir",
                "Entry",
                "Extent",
                "File",
                "Filter",
                "Hint",
                "Leased",
                "LeasedNames",
                "Listing",
                "Mirror",
                "Node",
                "Placement",
                "Pool",
                "Slice",
                "StatFs",
                "Symlink",
                "Tree",
                "Union",
                "Who",
                "Zeros",
            ),
            "tree.archive": ("Archive", "ArchiveError"),
            "tree.manifest": ("ManifestDir", "ManifestError", "load_manifest"),
        },
    )

__version__ = "0.2.0"

__all__ = [
    "WHOLE_FILE",
    "Archive",
    "ArchiveError",
    "Attributes",
    "BackingFile",
    "Bytes",
    "Computed",
    "Concat",
    "Dir",
    "Entry",
    "Extent",
    "File",
    "Filter",
    "Hint",
    "KernelServed",
    "Leased",
    "LeasedNames",
    "Listing",
    "ManifestDir",
    "ManifestError",
    "Mirror",
    "Mount",
    "MountError",
    "MountOptions",
    "Node",
    "Placement",
    "Pool",
    "Remote",
    "ServedMount",
    "Slice",
    "StatFs",
    "Symlink",
    "Tree",
    "Union",
    "Who",
    "Zeros",
    "__version__",
    "attach",
    "is_waiting",
    "load_manifest",
    "mount",
    "serve",
]
