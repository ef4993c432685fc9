"""Reads a manifest in TOML with ``[[node]]`` tables.

tomllib returns no line numbers, so an error message scans the source for its line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import BinaryIO, Final, NoReturn

import msgspec

from zcfuse.tree.manifest._builder import Builder
from zcfuse.tree.manifest._errors import ManifestError, Problem
from zcfuse.tree.manifest._records import Record, did_you_mean, problem_of
from zcfuse.tree.manifest._toml_lines import line_of

_KEY: Final = "node"
_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def read_toml(file: BinaryIO, name: str, builder: Builder, progress: Callable[[int], None]) -> None:
    """Add all nodes of a TOML file to `builder`, and close it. Raises ManifestError."""
    source = file.read()
    text = _decoded(source, name)
    tables = _tables(text, name)
    progress(len(source))
    position = 0
    try:
        for position, table in enumerate(tables):
            builder.add(position, _record(table))
        builder.finish()
    except Problem as problem:
        _complain(problem, position, text, name)


def _decoded(source: bytes, name: str) -> str:
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise ManifestError(name, line, "", f"not UTF-8: {error.reason}") from None


def _tables(text: str, name: str) -> list[object]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.fullmatch(str(error))
        reason = place[1] if place else str(error)
        if place is None or place[2] is None:
            raise ManifestError(name, text.count("\n") + 1, "", f"not TOML: {reason}") from None
        why = f"not TOML: {reason} (column {place[3]})"
        raise ManifestError(name, int(place[2]), "", why) from None
    except RecursionError:
        raise ManifestError(name, 0, "", "not usable: nested too deeply") from None
    for key in document:
        if key != _KEY:
            hint = did_you_mean(key, (_KEY,)) or f": there is only [[{_KEY}]]"
            raise ManifestError(name, line_of(text, (key,)), key, f"there is no such table{hint}")
    tables = document.get(_KEY, [])
    if not isinstance(tables, list):
        reason = f"must be written [[{_KEY}]], once for each node"
        raise ManifestError(name, line_of(text, (_KEY,)), _KEY, reason)
    return tables


def _record(table: object) -> Record:
    try:
        return msgspec.convert(table, Record)
    except msgspec.ValidationError as error:
        raise problem_of(error) from None


def _complain(problem: Problem, current: int, text: str, name: str) -> NoReturn:
    position = current if problem.position < 0 else problem.position
    reason = problem.reason
    if problem.other >= 0:
        reason += f" (line {line_of(text, (_KEY, problem.other))})"
    line = line_of(text, (_KEY, position, *_keys(problem.field)))
    raise ManifestError(name, line, problem.field, reason) from None


def _keys(field: str) -> list[str | int]:
    """Return the path of a field: ``parts[1].file`` is parts, 1, file."""
    found = re.findall(r"\[(\d+)\]|([^.\[\]]+)", field)
    return [int(index) if index else key for index, key in found]
