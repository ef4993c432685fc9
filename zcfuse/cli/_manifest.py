"""Loading a manifest for a command: what is wrong with it, and how far it is."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from zcfuse.cli._errors import CommandError, warn

if TYPE_CHECKING:
    from zcfuse.tree.manifest import ManifestDir

_PATIENCE_S: Final = 0.5  # without a word to a terminal
_WIPE: Final = "\r\x1b[K"


def load(path: str) -> ManifestDir:
    """Return the tree of a manifest; raise CommandError with the one line that tells what is wrong.

    To be called before the process forks: then it is done before anything is mounted, and the
    daemon's own memory never has what only reading needs.
    """
    # tomllib and the tree: not for a mount that has no manifest.
    from zcfuse.tree.manifest import ManifestError, load_manifest

    progress = _Progress(path)
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


class _Progress:
    """A line that says how far it is, for somebody who waits at a terminal."""

    def __init__(self, path: str) -> None:
        self._name = os.path.basename(path)
        self._began = time.monotonic()
        self._shown = False

    def show(self, done: int, total: int) -> None:
        """Say how much of the manifest was read."""
        if not sys.stderr.isatty() or time.monotonic() - self._began < _PATIENCE_S:
            return
        self._shown = True
        percent = 100 * done // total if total else 100
        print(f"{_WIPE}reading {self._name}: {percent} %", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print(_WIPE, end="", file=sys.stderr, flush=True)
