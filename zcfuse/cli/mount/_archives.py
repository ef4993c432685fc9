"""Finds, names and indexes archives for a command, and says which of them are damaged."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli.mount._progress import Progress

if TYPE_CHECKING:
    from zcfuse.tree import Dir
    from zcfuse.tree.archive import Archive, ArchiveError, UnpackBudget

KEEP: Final = {"cache": "CACHE", "beside": "BESIDE", "no": "NOT"}
"""The choices of ``--keep-index``, each with its member of `Keep`."""

_INDEX_ENDING: Final = ".zcidx"
_NAMED_AT_MOST: Final = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArchiveOptions:
    """How to index and show archives; None selects the default of `Archive`."""

    keep_index: str | None = None
    salvage: bool = False
    unpack_budget: int | None = None


@dataclass(frozen=True)
class _Candidate:
    """A file that may be an archive, found in a directory or named; says whether it must be one."""

    path: str
    directory: str = ""
    required: bool = True


def load_archive(path: str, options: ArchiveOptions) -> Archive:
    """Return the tree of one archive; raise CommandError with the reason in one line.

    Call it before the process forks, as `load_archives`.
    """
    with _indexing(1, options) as indexing:
        archive = indexing.load(_Candidate(path), or_else="or a directory")
    _warn_of_damage(archive)
    return archive


def load_archives(
    files: Sequence[str], directories: Sequence[str], options: ArchiveOptions
) -> tuple[Dir, list[Archive]]:
    """Return a directory that has each archive as a directory, and the archives.

    For each broken archive of `directories`, write one warning and leave it out. Other files there
    that are not archives share one warning. Call it before the process forks: nothing is mounted
    yet, and the user sees the progress.

    Raises:
        CommandError: one of `files` is broken, or no archive remains.
    """
    from zcfuse.tree import Dir
    from zcfuse.tree.archive import NotAnArchiveError

    candidates = [_Candidate(path) for path in dict.fromkeys(files)]
    for directory in dict.fromkeys(directories):
        candidates += _candidates(directory)
    found: dict[str, Archive] = {}
    strangers: dict[str, list[str]] = {}
    refused: list[CommandError] = []
    with _indexing(len(candidates), options) as indexing:
        for candidate in candidates:
            try:
                found[candidate.path] = indexing.load(candidate)
            except (NotAnArchiveError, OSError):
                strangers.setdefault(candidate.directory, []).append(candidate.path)
            except CommandError as error:
                if not candidate.directory or _is_ours(error):
                    raise
                refused.append(error)
    if refused and not found:
        raise refused[0]
    for reason in refused:
        warn(f"zcfuse: {reason} (left out, and the other archives are shown)")
    for directory, paths in strangers.items():
        _tell_of_strangers(directory, paths)
    for archive in found.values():
        _warn_of_damage(archive)
    if not found:
        raise CommandError(f"{directories[0]}: there is no tar or zip archive in it", usage=True)
    if not directories:
        names = _names(list(found))
        return Dir({names[path]: found[path] for path in found}), list(found.values())
    from zcfuse.cli.mount._archive_directory import ArchiveDirectory

    # A daemon has another working directory.
    watched = [os.path.abspath(directory) for directory in dict.fromkeys(directories)]
    by_path = {os.path.abspath(path): archive for path, archive in found.items()}
    load = functools.partial(made_archive, options=options, budget=indexing.budget)
    listed = functools.partial(_listed, watched)
    return ArchiveDirectory(watched, by_path, listed, load, _names), list(found.values())


def _listed(directories: Sequence[str]) -> list[str]:
    return [one.path for directory in directories for one in _candidates(directory)]


def made_archive(
    path: str,
    options: ArchiveOptions,
    budget: UnpackBudget,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Archive:
    """Return the tree of an archive. Raises ArchiveError, OSError."""
    from zcfuse.tree.archive import Archive, Keep

    return Archive(
        path,
        keep=Keep[KEEP[options.keep_index or "cache"]],
        progress=progress,
        salvage=options.salvage,
        budget=budget,
    )


def log_archives(archives: Sequence[Archive]) -> None:
    """Log each index, and the members that the mount leaves out or changes."""
    if not archives:
        return
    # This module loaded with the archives. Opening it now could fail, because clients of a mount
    # that answers take descriptors.
    from zcfuse.tree.archive import printable

    for archive in archives:
        index = archive.index
        path = printable(index.identity.path)
        how = "its kept index is used" if index.reused else "indexed"
        log.info("%s: %s members, %s (%s)", path, index.members, how, index.kept or "not kept")
        if index.kept_reason:
            log.info("%s: its index: %s", path, index.kept_reason)
        for note in index.notes:
            log.warning(
                "%s: %s members: %s (%r)", path, note.count, note.reason, os.fsdecode(note.example)
            )


class _Indexing:
    """Indexes one archive after the other."""

    def __init__(self, count: int, options: ArchiveOptions, progress: Progress) -> None:
        from zcfuse.tree.archive import UnpackBudget

        budget = options.unpack_budget
        self.budget = UnpackBudget() if budget is None else UnpackBudget(budget)
        self._options = options
        self._count = count
        self._done = 0
        self._progress = progress

    def load(self, candidate: _Candidate, or_else: str = "") -> Archive:
        """Return the tree of an archive.

        Raises:
            CommandError: a required archive is missing or broken.
            NotAnArchiveError, OSError: an optional candidate is no archive, or did not open.
        """
        from zcfuse.tree.archive import ArchiveError, NotAnArchiveError

        self._done += 1
        which = f" ({self._done} of {self._count})" if self._count > 1 else ""
        self._progress.what = f"indexing {os.path.basename(candidate.path)!r}{which}"
        try:
            return made_archive(
                candidate.path, self._options, self.budget, progress=self._progress.show
            )
        except NotAnArchiveError as error:
            if not candidate.required:
                raise
            raise _refused(error, or_else) from error
        except ArchiveError as error:
            raise _refused(error) from error
        except OSError as error:
            # Without a free descriptor no file opens, whether it is an archive or not.
            if not candidate.required and error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise _unreadable(candidate.path, error) from error


@contextlib.contextmanager
def _indexing(count: int, options: ArchiveOptions) -> Iterator[_Indexing]:
    # A large index holds a descriptor while its archive is mounted.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    progress = Progress("indexing")
    from zcfuse.tree.archive import indexing_process

    try:
        with indexing_process():
            yield _Indexing(count, options, progress)
    finally:
        progress.end()


def _refused(error: ArchiveError, or_else: str = "") -> CommandError:
    from zcfuse.tree.archive import NotAnArchiveError

    if isinstance(error, NotAnArchiveError):
        # The message about a compressed file names its own remedy.
        remedy = "" if error.compressed else f": name a tar or zip archive {or_else}".rstrip()
        return CommandError(f"{error}{remedy}", usage=True)
    if error.salvageable:
        return CommandError(f"{error}: get a whole copy, or show the part before that by --salvage")
    return CommandError(f"{error}: get a whole copy, and mount it when no program writes to it")


def _unreadable(path: str, error: OSError) -> CommandError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return CommandError(f"{path}: does not exist: correct the path", usage=True)
    if isinstance(error, PermissionError):
        return CommandError(f"{path}: not readable: give this user read permission on it")
    remedy = ": raise 'ulimit -n'" if error.errno == errno.EMFILE else ""
    return CommandError(f"{path}: {error.strerror}{remedy}")


def _candidates(directory: str) -> Iterator[_Candidate]:
    """Yield the files of a directory by name, without hidden files and kept indexes."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else "not a directory"
        raise CommandError(f"--archives {directory}: {what}: name a directory", usage=True) from (
            error
        )
    except PermissionError as error:
        raise CommandError(
            f"--archives {directory}: not readable: give this user read permission on it"
        ) from error
    from zcfuse.tree.archive import ENDINGS

    for name in names:
        if not name.startswith(".") and not name.endswith(_INDEX_ENDING):
            path = os.path.join(directory, name)
            required = name.lower().endswith(ENDINGS) and os.path.isfile(path)
            yield _Candidate(path, directory, required)


def _is_ours(error: CommandError) -> bool:
    """Say whether the error concerns the daemon's resources, which every archive needs."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def _tell_of_strangers(directory: str, paths: Sequence[str]) -> None:
    from zcfuse.tree.archive import shown

    names = [shown(os.path.basename(os.fsencode(path))) for path in paths]
    named = ", ".join(names[:_NAMED_AT_MOST]) + (", ..." if names[_NAMED_AT_MOST:] else "")
    warn(f"zcfuse: {directory}: {len(names)} left out, no tar or zip archives: {named}")


def _warn_of_damage(archive: Archive) -> None:
    if archive.index.damage:
        from zcfuse.tree.archive import printable

        path = printable(archive.index.identity.path)
        warn(f"zcfuse: {path}: {archive.index.damage}: everything after that is missing")


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return the name of each archive: its stem, or its whole name if stems are equal."""
    whole = {path: os.path.basename(path) for path in paths}
    stems = {path: _stem(name) for path, name in whole.items()}
    times = Counter(stems.values())
    names = {path: stem if times[stem] == 1 else whole[path] for path, stem in stems.items()}
    by_name: dict[str, str] = {}
    for path, name in names.items():
        if name in by_name:
            raise CommandError(
                f"{by_name[name]} and {path} would both be {name}: give one of them another name",
                usage=True,
            )
        by_name[name] = path
    clashes = [name for name in sorted(times) if times[name] > 1]
    for stem in clashes[:_NAMED_AT_MOST]:
        warn(f"zcfuse: {times[stem]} archives are called {stem}: shown with their endings")
    if clashes[_NAMED_AT_MOST:]:
        warn(f"zcfuse: and so {len(clashes) - _NAMED_AT_MOST} more names")
    return names


def _stem(name: str) -> str:
    """Return a name without the ending of an archive, or without its last ending."""
    from zcfuse.tree.archive import ENDINGS

    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name.removesuffix(name[-len(ending) :]) if ending else os.path.splitext(name)[0]
