"""Loads a manifest for a command, with its errors in one line and its progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli.mount._progress import Progress
from zcfuse.cli.mount._remote import check_url

if TYPE_CHECKING:
    from zcfuse.tree import Tree
    from zcfuse.tree.manifest import ManifestDir


def load(path: str, remote: Callable[[str], Tree] | None = None) -> ManifestDir:
    """Return the tree of a manifest; raise CommandError with the reason in one line.

    `remote` makes the tree of a URL; without it no node may be one.

    Call it before the process forks. Errors then come before the mount, and the daemon's memory
    stays free of data that only the reading needs.
    """
    # Only a mount with a manifest needs tomllib and the tree.
    from zcfuse.tree.manifest import ManifestError, load_manifest

    progress = Progress(f"reading {os.path.basename(path)}")
    try:
        tree = load_manifest(path, progress=progress.show, remote=remote)
    except ManifestError as error:
        raise CommandError(str(error), usage=True) from error
    finally:
        progress.end()
    for url in tree.urls:
        check_url(url)
    if tree.unchecked_files:
        warn(
            f"zcfuse: {path}: {tree.unchecked_files} of its files were not checked:"
            " the mount leaves out the names of missing files"
        )
    return tree
