"""Reads a manifest with one JSON object per line."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Final, NoReturn

import msgspec

from zcfuse.tree.manifest._builder import Builder
from zcfuse.tree.manifest._errors import ManifestError, Problem
from zcfuse.tree.manifest._records import Record, problem_of

_PROGRESS_LINES: Final = 1 << 14


def read_json_lines(
    file: BinaryIO, name: str, builder: Builder, progress: Callable[[int], None]
) -> None:
    """Add all nodes of a file to `builder`, and close it. Raises ManifestError.

    Skips empty lines, but counts them.
    """
    line = 0
    try:
        line = _read(file, name, builder, progress)
        builder.finish()
    except Problem as problem:
        _complain(problem, line, name)


def _read(file: BinaryIO, name: str, builder: Builder, progress: Callable[[int], None]) -> int:
    decode = msgspec.json.Decoder(Record).decode
    add = builder.add
    done = line = 0
    for line, text in enumerate(file, 1):
        try:
            add(line, decode(text))
        except Problem as problem:
            _complain(problem, line, name)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _skip_or_complain(error, text, line, name)
        done += len(text)
        if not line % _PROGRESS_LINES:
            progress(done)
    progress(done)
    return line


def _skip_or_complain(error: Exception, text: bytes, line: int, name: str) -> None:
    if not text.strip():
        return
    if isinstance(error, msgspec.ValidationError):
        _complain(problem_of(error), line, name)
    # msgspec says so in words, or raises UnicodeDecodeError.
    if undecodable := _why_no_text(text):
        reason = f"not UTF-8: {undecodable}"
    elif isinstance(error, RecursionError):
        reason = "not usable: nested too deeply"
    else:
        what = str(error).removeprefix("JSON is malformed: ")
        reason = f"not a JSON object: {what[:1].lower()}{what[1:]}"
    raise ManifestError(name, line, "", reason) from None


def _why_no_text(text: bytes) -> str:
    """Return why `text` is not UTF-8, "" if it is."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason
    return ""


def _complain(problem: Problem, current: int, name: str) -> NoReturn:
    line = current if problem.position < 0 else problem.position
    other = f" (line {problem.other})" if problem.other >= 0 else ""
    raise ManifestError(name, line, problem.field, problem.reason + other) from None
