"""Where a daemon's log goes; opened before the fork, so that a wrong path fails the command."""

from __future__ import annotations

import sys
from typing import TextIO

from zcfuse.datapath._mounting import MountError


def open_log(path: str) -> TextIO:
    """Open a log file to append to, one line at a time; see ``--log-file``.

    Raises:
        MountError: it cannot be opened.
    """
    try:
        return open(path, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        message = f"--log-file {path}: {error.strerror}: name a file in a directory that exists"
        raise MountError(message, usage=True) from error
    except OSError as error:
        raise MountError(
            f"--log-file {path}: {error.strerror}: choose a file that this user may write"
        ) from error


def foreground_log(path: str | None) -> TextIO:
    """Return where a daemon in the foreground logs: the file, or standard error."""
    return open_log(path) if path else sys.stderr
