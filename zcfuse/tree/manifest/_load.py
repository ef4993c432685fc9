"""Loads a manifest and returns its directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

from zcfuse.arguments import require_call, require_type
from zcfuse.tree._types import Tree
from zcfuse.tree.manifest._builder import Builder
from zcfuse.tree.manifest._directory import Entries, ManifestDir
from zcfuse.tree.manifest._errors import ManifestError
from zcfuse.tree.manifest._json_lines import read_json_lines
from zcfuse.tree.manifest._toml import read_toml

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes read so far and the total bytes of the manifest."""

CHECKED_FILES: Final = 100_000
"""Checking this many files takes a fraction of a second, if their inodes are in memory."""

_FORMATS: Final = {".toml": read_toml, ".jsonl": read_json_lines, ".ndjson": read_json_lines}


def load_manifest(
    path: str | os.PathLike[str],
    /,
    *,
    progress: Progress | None = None,
    checked_files: int = CHECKED_FILES,
    remote: Callable[[str], Tree] | None = None,
) -> ManifestDir:
    """Read a manifest and check all of it.

    Parameters:
        path: a TOML file (``.toml``) or one with one JSON object per line (``.jsonl``,
            ``.ndjson``). Relative paths in it start at its directory.
        progress: called sometimes during reading.
        checked_files: the maximum number of different files to check: that they exist, are regular
            files, and contain the ranges. Errors of other files appear when a client uses them, as
            for a `File` or `Slice`.
        remote: makes the tree of a URL in the manifest, such as `zcfuse.Remote`, when a client
            first looks the node up.

    Returns:
        The directory, to mount or to put into another one.

    Raises:
        ManifestError: the manifest is invalid, with a message of one line.
    """
    require_type("path", path, (str, os.PathLike), "a path")
    if progress is not None:
        require_call("progress", progress)
    require_type("checked_files", checked_files, int, "a number of files")
    if remote is not None:
        require_call("remote", remote)
    name = os.fspath(path)
    read = _FORMATS.get(os.path.splitext(name)[1])
    if read is None:
        endings = ", ".join(_FORMATS)
        raise ManifestError(name, 0, "", f"of no known format: its name must end in {endings}")
    try:
        with open(name, "rb") as file:
            status = os.fstat(file.fileno())
            base = os.path.dirname(os.path.abspath(os.fsencode(name)))
            opens_urls = remote is not None
            builder = Builder(base, status.st_mtime_ns, checked_files, opens_urls=opens_urls)
            read(file, name, builder, _reporter(progress, status.st_size))
    except OSError as error:
        raise ManifestError(name, 0, "", error.strerror or str(error)) from error
    return ManifestDir(Entries(builder.index(), remote))


def _reporter(progress: Progress | None, total: int) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    return lambda done: progress(done, max(done, total))
