"""A wrong argument of what a program builds a tree of is refused by its name; reprs say what is."""

from __future__ import annotations

import inspect
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zcfuse
from zcfuse import views

ATTRIBUTES = {"mode": 0o444, "uid": 0, "gid": 0, "mtime": 1.5, "path": "auto"}
MADE_ATTRIBUTES = {name: ATTRIBUTES[name] for name in ("mode", "uid", "gid", "mtime")}


async def read(offset: int, size: int) -> bytes:
    return bytes(size)


def calls(where: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Each public entry, tree and view with good arguments for all of its parameters."""
    file, archive, manifest = where / "file", where / "a.tar", where / "tree.jsonl"
    file.write_bytes(b"bytes")
    manifest.write_text('{"path": "a", "file": "file"}\n')
    with tarfile.open(archive, "w") as tar:
        tar.add(file, "file")
    limits = {"cache_size": "1%", "cache_floor": "1%", "cache_timeout": 1.0, "deadline": 1.0}
    return {
        "File": (zcfuse.File, {"file": file, **ATTRIBUTES}),
        "Slice": (zcfuse.Slice, {"of": file, "offset": 0, "length": 1, **ATTRIBUTES}),
        "Concat": (zcfuse.Concat, {"parts": [file], **ATTRIBUTES}),
        "Zeros": (zcfuse.Zeros, {"length": 1, **ATTRIBUTES}),
        "Bytes": (zcfuse.Bytes, {"data": b"x", **ATTRIBUTES}),
        "Computed": (zcfuse.Computed, {"size": 1, "read": read, **MADE_ATTRIBUTES}),
        "Symlink": (zcfuse.Symlink, {"target": "x", **ATTRIBUTES}),
        "Dir": (zcfuse.Dir, {"entries": {}, **ATTRIBUTES}),
        "from_paths": (zcfuse.Dir.from_paths, {"paths": {}}),
        "Leased": (zcfuse.Leased, {"entry": file, "valid_for": 1, "for_everyone": True}),
        "LeasedNames": (
            zcfuse.LeasedNames,
            {"names": ["a"], "valid_for": 1, "for_everyone": True, "complete": True},
        ),
        "Mirror": (zcfuse.Mirror, {"source": where, "openat2": True}),
        "Union": (zcfuse.Union, {"layers": [where], "openat2": True, "trusted": None}),
        "Filter": (zcfuse.Filter, {"tree": where, "hide": [], "show": [], "rename": {}}),
        "Archive": (
            zcfuse.Archive,
            {"path": archive, "salvage": False, "uid": 1, "gid": 1, "budget": 1 << 20},
        ),
        "Remote": (
            zcfuse.Remote,
            {"url": "memory://x", "cache_dir": str(where / "kept"), "connections": 1, **limits},
        ),
        "load_manifest": (
            zcfuse.load_manifest,
            {"path": manifest, "progress": None, "checked_files": 1},
        ),
        "by_user": (views.by_user, {"choose": {}, "default": None}),
        "dedup": (views.dedup, {"files": []}),
        "flatten": (views.flatten, {"files": [], "separator": "_"}),
        "split": (views.split, {"files": [], "by": {"a": 1}}),
        "faulty": (
            views.faulty,
            {"path": file, "error": 5, "delay": 0.0, "range": (0, 1), "mode": 0o444},
        ),
        "tiered": (views.tiered, {"fast": where, "slow": where, "after": 1}),
    }


NAMES = [
    *("File", "Slice", "Concat", "Zeros", "Bytes", "Computed", "Symlink", "Dir", "from_paths"),
    *(
        "LeasedNames",
        "Leased",
        "Mirror",
        "Union",
        "Filter",
        "Archive",
        "Remote",
        "load_manifest",
        "by_user",
    ),
    *("dedup", "flatten", "split", "faulty", "tiered"),
]


def called(function: Callable[..., Any], arguments: dict[str, Any]) -> object:
    """Call with positional arguments where the parameter has no keyword."""
    parameters = inspect.signature(function).parameters
    places, keywords = [], {}
    for name, value in arguments.items():
        one = parameters.get(name)
        if one is not None and one.kind is inspect.Parameter.POSITIONAL_ONLY:
            places.append(value)
        else:
            keywords[name] = value
    return function(*places, **keywords)


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_of_a_wrong_type_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    function, good = calls(tmp_path)[name]
    for argument in good:
        with pytest.raises((TypeError, ValueError), match=rf"\b{argument}\b"):
            called(function, {**good, argument: object()})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Remote"])
def test_a_keyword_that_does_not_exist_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    function, good = calls(tmp_path)[name]  # a Remote passes further keywords on to its driver
    with pytest.raises(TypeError, match=r"\bcolour\b"):
        called(function, {**good, "colour": 1})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Remote"])
def test_good_arguments_make_something_whose_repr_says_what_it_is(
    name: str, tmp_path: Path
) -> None:
    function, good = calls(tmp_path)[name]
    made = called(function, good)
    try:
        assert re.fullmatch(r"<[\w<]+[ :].+>", repr(made)), repr(made)
    finally:
        getattr(made, "close", lambda: None)()
