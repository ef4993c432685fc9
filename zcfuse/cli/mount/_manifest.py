"""Loading a manifest for a command: what is wrong with it, and how far it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli.mount._progress import Progress

if TYPE_CHECKING:
    from zcfuse.tree.manifest import ManifestDir


def load(path: str) -> ManifestDir:
    """Return the tree of a manifest; raise CommandError with the one line that tells what is wrong.

    To be called before the process forks: then it is done before anything is mounted, and the
    daemon's own memory never has what only reading needs.
    """
    # tomllib and the tree: not for a mount that has no manifest.
    from zcfuse.tree.manifest import ManifestError, load_manifest

    progress = Progress(f"reading {os.path.basename(path)}")
    try:
        tree = load_manifest(path, progress=progress.show)
    except ManifestError as error:
        raise CommandError(str(error), usage=True) from error
    finally:
        progress.end()
    if tree.unchecked_files:
        warn(
            f"zcfuse: {path}: {tree.unchecked_files} of its files were not looked at:"
            " one that is missing is a missing name"
        )
    return tree
