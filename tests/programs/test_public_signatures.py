"""Every type in the signature of a public name is a public name too."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import pytest

import zcfuse

USED_BY_PROGRAMS = ["zcfuse", "zcfuse.views", "zcfuse.tree"]


@functools.cache
def fronts() -> dict[str, ModuleType]:
    """The packages and modules without an underscore in their names, which a program may import."""
    found = {"zcfuse": zcfuse}
    for one in pkgutil.walk_packages(zcfuse.__path__, "zcfuse."):
        if "._" not in one.name and not one.name.startswith("zcfuse.datapath.native"):
            found[one.name] = importlib.import_module(one.name)
    return found


def signatures(package: str) -> Iterator[tuple[str, Any]]:
    """Each public function and method, and each class for its annotated attributes."""
    module = fronts()[package]
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value):
            if inspect.isroutine(value):
                yield name, inspect.unwrap(value)
            continue
        yield name, value
        if issubclass(value, zcfuse.Node) and value is not zcfuse.Node:
            continue  # only the tree that made a node knows more about it
        for own, member in vars(value).items():
            if own.startswith("_") and own != "__init__":
                continue
            member = member.fget if isinstance(member, property) else member
            member = getattr(member, "__func__", member)
            if inspect.isfunction(member):
                yield f"{name}.{own}", inspect.unwrap(member)


@functools.cache
def imported(module: str) -> dict[str, tuple[str, str]]:
    """Where each name of a module's imports is from, also of those for type checkers."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


def is_public(name: str, module: str) -> bool:
    """Whether `name`, as an annotation in `module` means it, is builtin, foreign or exported."""
    if hasattr(builtins, name):
        return True
    origin, own = imported(module).get(name, (module, name))
    if not origin.startswith("zcfuse"):
        return True
    meaning = getattr(importlib.import_module(origin), own)
    if isinstance(meaning, ModuleType | TypeVar | ParamSpec):
        return True
    return any(getattr(front, own, None) is meaning for front in fronts().values())


def private_types(package: str) -> Iterator[str]:
    """Describe each private type in a signature of a package."""
    for label, value in signatures(package):
        if not value.__module__.startswith("zcfuse"):
            continue
        for parameter, annotation in inspect.get_annotations(value).items():
            if parameter.startswith("_") or not isinstance(annotation, str):
                continue
            for name in re.findall(r"(?<![\w.'])[A-Za-z_]\w*", annotation):
                if not is_public(name, value.__module__):
                    yield f"{label}: {parameter} is {name}"


@pytest.mark.parametrize("package", USED_BY_PROGRAMS)
def test_each_type_in_a_public_signature_is_public(package: str) -> None:
    assert list(private_types(package)) == []
