"""One node of a manifest, and the messages for invalid ones."""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from zcfuse.tree._entry import LARGEST, LARGEST_ID
from zcfuse.tree.manifest._errors import Problem

_Size = Annotated[int, Meta(ge=0, le=LARGEST)]
_Id = Annotated[int, Meta(ge=0, le=LARGEST_ID)]


class Part(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A part of a file; `docs/manifests.md` explains the fields."""

    file: str | None = None
    offset: _Size | None = None
    length: _Size | None = None
    text: str | None = None
    base64: str | None = None
    zeros: _Size | None = None


class Record(Part, forbid_unknown_fields=True, gc=False, kw_only=True):
    """A node."""

    path: str
    symlink: str | None = None
    parts: list[Part] | None = None
    mirror: str | None = None
    coherence: str | None = None
    remote: str | None = None
    dir: bool = False
    mode: str | None = None
    uid: _Id | None = None
    gid: _Id | None = None
    mtime: int | float | datetime | None = None
    serve: str | None = None


PART_CONTENTS: Final = ("file", "text", "base64", "zeros")
CONTENTS: Final = (*PART_CONTENTS, "symlink", "parts", "mirror", "remote", "dir")

# Other formats' names for our fields, too different to be found by similarity.
_MEANT: Final = {
    "bytes": "text, or base64",
    "concat": "parts",
    "content": "text",
    "data": "text, or base64",
    "hole": "zeros",
    "link": "symlink",
    "name": "path",
    "node": "path",
    "size": "length",
    "source": "file",
    "target": "symlink",
    "type": "",
}
_KINDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "datetime": "a date with time and zone",
    "date": "a date",
    "float": "a number with a fraction",
    "int": "a whole number",
    "null": "null",
    "object": "a table",
    "str": "text",
    "time": "a time of day",
}
_COMPLAINT: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TYPES: Final = re.compile(r"Expected `(.*)`, got `(.*)`")
_BOUND: Final = re.compile(r"Expected `.*` (>=|<=) (\d+)")


def problem_of(error: msgspec.ValidationError) -> Problem:
    """Return a msgspec error in terms of the manifest."""
    found = _COMPLAINT.fullmatch(str(error))
    assert found is not None, "it matches anything"
    what, where = found["what"], found["where"] or ""
    if unknown := _UNKNOWN.fullmatch(what):
        return Problem(_joined(where, unknown[1]), _unknown(where, unknown[1]))
    if missing := _MISSING.fullmatch(what):
        return Problem(_joined(where, missing[1]), "is missing")
    if where == "mode" and _TYPES.fullmatch(what):
        return Problem(where, 'must be text, in octal, such as "0644"')
    if types := _TYPES.fullmatch(what):
        wanted = [kind for kind in types[1].split(" | ") if kind != "null"]
        return Problem(where, f"must be {_any_of(wanted)}, not {_any_of(types[2].split(' | '))}")
    if bound := _BOUND.fullmatch(what):
        return Problem(where, f"must be {bound[2]} or {'more' if bound[1] == '>=' else 'less'}")
    return Problem(where, what[:1].lower() + what[1:])


def did_you_mean(word: str, words: tuple[str, ...]) -> str:
    """Return a question with the most similar word, or an empty string."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def _joined(where: str, field: str) -> str:
    return f"{where}.{field}" if where else field


def _unknown(where: str, field: str) -> str:
    kind = Part if where else Record
    if where and field in Record.__struct_fields__:
        return f"a part has no such field: it has {', '.join(kind.__struct_fields__)}"
    meant = _MEANT.get(field, "")
    hint = f", did you mean {meant}?" if meant else did_you_mean(field, kind.__struct_fields__)
    return f"there is no such field{hint or ': there are ' + ', '.join(kind.__struct_fields__)}"


def _any_of(kinds: list[str]) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in kinds)
