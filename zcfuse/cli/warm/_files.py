"""Finds the regular files below some paths and cuts them into jobs of a bounded size."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zcfuse.admin import MOST_BYTES, MOST_FILES
from zcfuse.cli._mount_paths import MountPath, MountPaths


class FoundFile(NamedTuple):
    """A regular file; `place` is None outside of all zcfuse mounts."""

    path: str
    size: int
    place: MountPath | None


class FilePiece(NamedTuple):
    """A range of a file, in bytes."""

    file: FoundFile
    offset: int
    length: int


Failure = tuple[str, str]
"""A path, and why it could not be warmed."""


def find_files(paths: Sequence[str], failures: list[Failure]) -> list[FoundFile]:
    """Return the regular files at and below some paths, each once.

    Follow a symbolic link that the user names, but no link below a directory. Add paths that
    cannot be read to `failures`.
    """
    places = MountPaths()
    found: dict[str, FoundFile] = {}
    for given in paths:
        path = os.path.realpath(given)
        try:
            status = os.stat(path)
        except OSError as error:
            failures.append((given, error.strerror or str(error)))
            continue
        if stat.S_ISDIR(status.st_mode):
            for file in _below(path, places, failures):
                found[file.path] = file
        elif stat.S_ISREG(status.st_mode):
            found[path] = FoundFile(path, status.st_size, places.find(path, status.st_dev))
        else:
            failures.append((given, "neither a regular file nor a directory"))
    return list(found.values())


def _below(directory: str, places: MountPaths, failures: list[Failure]) -> Iterator[FoundFile]:
    def note(error: OSError) -> None:
        failures.append((os.fsdecode(error.filename or directory), error.strerror or str(error)))

    for parent, _, names in os.walk(directory, onerror=note):
        for name in sorted(names):
            path = os.path.join(parent, name)
            try:
                status = os.lstat(path)
            except OSError as error:
                note(error)
                continue
            if stat.S_ISREG(status.st_mode):
                yield FoundFile(path, status.st_size, places.find(path, status.st_dev))


def jobs_of(files: Sequence[FoundFile]) -> Iterator[list[FilePiece]]:
    """Yield jobs: lists of pieces, each list no longer than one request to a daemon allows.

    All pieces of a job are of one mount.
    """
    job: list[FilePiece] = []
    size = 0
    for piece in itertools.chain.from_iterable(map(pieces_of, files)):
        other = job and _mount(job[0].file) != _mount(piece.file)
        if job and (other or len(job) == MOST_FILES or size + piece.length > MOST_BYTES):
            yield job
            job, size = [], 0
        job.append(piece)
        size += piece.length
    if job:
        yield job


def pieces_of(file: FoundFile) -> list[FilePiece]:
    """Return a file in pieces, each no larger than one request allows."""
    return [
        FilePiece(file, offset, min(MOST_BYTES, file.size - offset))
        for offset in range(0, file.size, MOST_BYTES)
    ]


def _mount(file: FoundFile) -> object:
    return None if file.place is None else file.place.mount.device
