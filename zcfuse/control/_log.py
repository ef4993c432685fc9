"""Chooses the destination and the format of a daemon's log.

The file opens before the fork, so that a wrong path fails the command. In the journal each line
starts with its level, as in sd-daemon(3), and has no time, which the journal adds.
"""

from __future__ import annotations

import errno
import faulthandler
import logging
import os
import stat
import sys
from typing import Any, Final, TextIO

from zcfuse.control._log_limit import LimitedHandler
from zcfuse.linux import MountError
from zcfuse.text import escaped

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT_LOG_LEVEL: Final = "info"

_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JOURNAL_FORMAT: Final = "%(name)s: %(message)s"
# syslog(3): 2 critical, 3 error, 4 warning, 6 informational, 7 debug.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4))
_INFORMATIONAL: Final = 6
_DEBUG: Final = 7


def open_log(path: str) -> TextIO:
    """Open a log file that grows by whole lines; see ``--log-file``.

    A new file has mode 0600, whatever the umask. Another user may have put a link or a FIFO there,
    so never follow one or wait for a reader.

    Raises:
        MountError: the file does not open, or is a symbolic link, a FIFO or a socket.
    """
    try:
        fd = _open_to_append(path)
        return open(fd, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        message = f"--log-file {path}: {error.strerror}: name a file in a directory that exists"
        raise MountError(message, usage=True) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EINVAL):
            raise MountError(
                f"--log-file {path}: a symbolic link, a FIFO or a socket: name a regular file",
                usage=True,
            ) from error
        raise MountError(
            f"--log-file {path}: {error.strerror}: choose a file that this user may write"
        ) from error


def _open_to_append(path: str) -> int:
    # O_NONBLOCK keeps open(2) from waiting for a reader of a FIFO.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(fd, 0o600)
    except FileExistsError:
        fd = os.open(path, flags)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISCHR(mode):
        os.set_blocking(fd, True)
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", path)


def foreground_log(path: str | None) -> TextIO:
    """Return the log stream of a daemon in the foreground: the file, or standard error."""
    return open_log(path) if path else sys.stderr


def background_log(path: str | None) -> TextIO | None:
    """Return the log stream of a daemon in the background: the file, the journal, or None.

    It is the journal if standard error leads there, since then a systemd mount unit started the
    command.
    """
    if path:
        return open_log(path)
    return sys.stderr if is_journal(sys.stderr) else None


def is_journal(stream: TextIO) -> bool:
    """Say whether a stream leads to the journal, whose socket systemd names (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(text: str, level: int) -> str:
    """Return a text for the journal, with its priority in front of each line."""
    lowest = _DEBUG if level < logging.INFO else _INFORMATIONAL
    priority = next((number for least, number in _PRIORITIES if level >= least), lowest)
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def set_up_logging(log_to: TextIO | None, level: str = DEFAULT_LOG_LEVEL) -> None:
    """Send this process's log and its crashes to a stream; None discards them.

    Parameters:
        log_to: see `foreground_log` and `background_log`.
        level: the lowest level to write, one of `LOG_LEVELS`.
    """
    if log_to is None:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return
    handler = LimitedHandler(log_to)
    journal = is_journal(log_to)
    handler.setFormatter(_JournalFormatter() if journal else _Formatter(_FORMAT))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    faulthandler.enable(log_to)


class _Formatter(logging.Formatter):
    """Escapes control characters, and line ends in a message, so that no text can forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401
        """Return a traceback with indented lines, unlike those of a record."""
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {escaped(line)}" for line in lines)


class _JournalFormatter(_Formatter):
    """Gives each line its level: in the journal, each line of a traceback is a separate message."""

    def __init__(self) -> None:
        super().__init__(_JOURNAL_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        return with_priority(super().format(record), record.levelno)
