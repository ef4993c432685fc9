"""Checks how the packages of zcfuse import each other; prints each violation on a line.

A package uses another one through its public names only, and only in the direction of `LAYERS`.
Imports inside functions count too.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

ROOT: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")

# Each package imports only packages that stand before it.
LAYERS: Final = (
    "arguments", "text", "reasons", "linux", "datapath", "options", "tree", "views", "remote",
    "placement", "frozen", "fuse", "admin", "engine", "control", "audit", "bench", "cli",
    "workers", "dask",
)  # fmt: skip
# These packages look at mounts from outside; a mount never loads them.
OUTSIDE: Final = ("zcfuse.audit", "zcfuse.bench")
MAY_MEASURE: Final = (*OUTSIDE, "zcfuse.cli.bench", "zcfuse.cli.copies", "zcfuse.cli.doctor")
_KNOWN: Final = (*LAYERS, "lazy", "main__")
# ctypes: only the Linux interfaces use it.
CTYPES_OWNER: Final = "zcfuse.linux"


class Import(NamedTuple):
    """One name that a module imports."""

    where: str
    module: str
    package: str
    target: str
    name: str


def violations(root: str = ROOT) -> Iterator[str]:
    """Return a line for each import that breaks a rule."""
    modules = dict(_modules(root))
    for one in _imports(root, modules):
        yield from (f"{one.where}: {reason}" for reason in _judged(one))
    for module, path in modules.items():
        if module.count(".") == 1 and module[len("zcfuse.") :].lstrip("_") not in _KNOWN:
            yield f"{path}: scripts/imports.py has no place for it in LAYERS"
        if path.endswith("__init__.py"):
            yield from _front(module, os.path.join(root, path))


def _modules(root: str) -> Iterator[tuple[str, str]]:
    for directory, _, names in os.walk(os.path.join(root, "zcfuse")):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.relpath(os.path.join(directory, name), root)
                yield path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), path


def _imports(root: str, modules: dict[str, str]) -> Iterator[Import]:
    for module, path in modules.items():
        package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
        for node in ast.walk(_parsed(os.path.join(root, path))):
            where = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(where, module, package, alias.name, "")
            elif isinstance(node, ast.ImportFrom):
                source = _absolute(node, package)
                for alias in node.names:
                    inner = f"{source}.{alias.name}"
                    is_module = inner in modules
                    yield Import(where, module, package, inner if is_module else source, alias.name)


def _parsed(path: str) -> ast.Module:
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read())


def _absolute(node: ast.ImportFrom, package: str) -> str:
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def _judged(one: Import) -> Iterator[str]:
    if one.target == "ctypes" and not _within(one.package, CTYPES_OWNER):
        yield f"only {CTYPES_OWNER} uses ctypes"
    if not _within(one.target, "zcfuse"):
        return
    owner = _owner_of_private(f"{one.target}.{one.name}".rstrip("."))
    if owner not in (None, "zcfuse") and not _within(one.package, str(owner)):
        yield f"{one.target} is private to {owner}: import {one.name or 'it'} from {owner}"
    # The root package shows names of all others.
    if one.package != "zcfuse" and _layer(one.target) > _layer(one.package):
        yield f"{one.package} stands below {one.target}, so it cannot import from there"
    if _below_any(one.target, OUTSIDE) and not _below_any(one.module, MAY_MEASURE):
        yield f"a mount never imports {one.target}"


def _owner_of_private(name: str) -> str | None:
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.startswith("_") and not part.startswith("__"):
            return ".".join(parts[:index])
    return None


def _layer(module: str) -> int:
    top = module.split(".")[1:2]
    return LAYERS.index(top[0]) if top and top[0] in LAYERS else -1


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _below_any(module: str, packages: tuple[str, ...]) -> bool:
    return any(_within(module, package) for package in packages)


def _front(module: str, path: str) -> Iterator[str]:
    """Check that the names for type checkers and the table of `lazy` agree."""
    tree = _parsed(path)
    said = {
        (str(node.module), alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for pair in sorted(said ^ set(_table(module, tree))):
        yield f"{path}: {pair[0]}.{pair[1]} is only in one of the two lists"


def _table(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if not isinstance(node.value.func, ast.Name) or node.value.func.id != "lazy":
            continue
        for home, names in ast.literal_eval(node.value.args[1]).items():
            yield from ((f"{module}.{home}", name) for name in names)


def main() -> int:
    """Print the violations; return 1 if there are any."""
    found = list(violations())
    for line in found:
        print(line)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
