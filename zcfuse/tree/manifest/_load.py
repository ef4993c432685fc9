"""Loads a manifest and returns its directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import BinaryIO, Final, TypeAlias

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

_Stamp: TypeAlias = tuple[int, int, int, int, int] | None
_Reader: TypeAlias = Callable[[BinaryIO, str, Builder, Callable[[int], None]], None]

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
    file = _File(name, read, checked_files, remote)
    return ManifestDir(file.read(progress), file=file)


class _File:
    """The file of a manifest, and how to read it."""

    def __init__(
        self,
        name: str,
        read: _Reader,
        checked_files: int,
        remote: Callable[[str], Tree] | None,
    ) -> None:
        self._name = name
        self._path = os.path.abspath(os.fsencode(name))  # a daemon has another working directory
        self._read = read
        self._checked_files = checked_files
        self._remote = remote
        self._seen: _Stamp = None

    @property
    def directory(self) -> bytes:
        """The directory that it lies in, where relative paths start."""
        return os.path.dirname(self._path)

    def read(self, progress: Progress | None = None) -> Entries:
        """Read it now. Raises ManifestError."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                self._seen = _stamp(status)
                builder = Builder(
                    self.directory,
                    status.st_mtime_ns,
                    self._checked_files,
                    opens_urls=self._remote is not None,
                )
                self._read(file, self._name, builder, _reporter(progress, status.st_size))
        except OSError as error:
            raise ManifestError(self._name, 0, "", error.strerror or str(error)) from error
        return Entries(builder.index(), self._remote)

    def read_if_changed(self) -> Entries | None:
        """Read it if it has changed since the last time. Raises ManifestError."""
        before, self._seen = self._seen, None
        with contextlib.suppress(OSError):
            self._seen = _stamp(os.stat(self._path))
        return None if self._seen == before else self.read()


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _reporter(progress: Progress | None, total: int) -> Callable[[int], None]:
    if progress is None:
        return lambda done: None
    return lambda done: progress(done, max(done, total))
