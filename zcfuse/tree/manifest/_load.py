"""From the path of a manifest to the directory that it describes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeAlias

from zcfuse.tree.manifest._builder import Builder
from zcfuse.tree.manifest._directory import Entries, ManifestDir
from zcfuse.tree.manifest._errors import ManifestError
from zcfuse.tree.manifest._json_lines import read_json_lines
from zcfuse.tree.manifest._toml import read_toml

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the bytes that were read so far and those that the manifest has in all."""

CHECKED_FILES: Final = 100_000
"""Looking at so many files takes a fraction of a second, unless a disk has to be asked for each."""

_FORMATS: Final = {".toml": read_toml, ".jsonl": read_json_lines, ".ndjson": read_json_lines}


def load_manifest(
    path: str | os.PathLike[str],
    /,
    *,
    progress: Progress | None = None,
    checked_files: int = CHECKED_FILES,
) -> ManifestDir:
    """Read a manifest and check all of it.

    Parameters:
        path: a TOML file (``.toml``) or one with a JSON object a line (``.jsonl``, ``.ndjson``).
            Relative paths in it begin at its directory.
        progress: called now and then while it is read.
        checked_files: up to so many different files are looked at: whether they exist, are regular
            files, and have the ranges that are asked for. What is wrong with further ones shows
            when a client looks at them, as it would for a `File` or `Slice`.

    Returns:
        The directory, to be mounted or to be put into another one.

    Raises:
        ManifestError: something is wrong with it, in one line.
    """
    name = os.fspath(path)
    read = _FORMATS.get(os.path.splitext(name)[1])
    if read is None:
        endings = ", ".join(_FORMATS)
        raise ManifestError(name, 0, "", f"of no known format: its name must end in {endings}")
    try:
        with open(name, "rb") as file:
            status = os.fstat(file.fileno())
            base = os.path.dirname(os.path.abspath(os.fsencode(name)))
            builder = Builder(base, status.st_mtime_ns, checked_files)
            read(file, name, builder, _reporter(progress, status.st_size))
    except OSError as error:
        raise ManifestError(name, 0, "", error.strerror or str(error)) from error
    return ManifestDir(Entries(builder.index()))


def _reporter(progress: Progress | None, total: int) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    return lambda done: progress(done, max(done, total))
