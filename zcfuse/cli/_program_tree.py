"""The tree that a Python program describes: ``MODULE:NAME`` or ``FILE.py:NAME``.

NAME is a `Dir`, a `Tree`, or what returns one without arguments. The program runs in the process of
the command, before anything is mounted, so its errors go to the command's own terminal.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from zcfuse.cli._errors import CommandError

if TYPE_CHECKING:
    from types import ModuleType

    from zcfuse.tree import Tree

_NAME: Final = re.compile(r"(?:[A-Za-z_][\w.]*|.+\.py):[A-Za-z_][\w.]*")


def is_program(text: str) -> bool:
    """Say whether a SOURCE that does not exist as a path names a tree in a program."""
    return _NAME.fullmatch(text) is not None and not os.path.lexists(text)


def load_program_tree(text: str) -> Tree:
    """Run a program and return the tree that it calls by a name.

    A module is looked for in the working directory too. A file's own directory is where it finds
    its modules, as if it were run.

    Raises:
        CommandError: there is no such module, file or name, the program fails, or the name stands
            for no tree. One line that says which.
    """
    from zcfuse.tree import Dir, Tree, VirtualTree

    where, _, name = text.rpartition(":")
    found: object = _load_file(text, where) if where.endswith(".py") else _load(text, where)
    for part in name.split("."):
        if not hasattr(found, part):
            raise CommandError(f"{text}: {where} has no name {part!r}", usage=True)
        found = getattr(found, part)
    if callable(found):
        with _one_line(text):
            found = found()
    if isinstance(found, Dir):
        return VirtualTree(found)
    if not isinstance(found, Tree):
        raise CommandError(
            f"{text}: not a Dir or a Tree, nor a function that returns one, but {found!r:.80}",
            usage=True,
        )
    return found


def _load(text: str, module: str) -> ModuleType:
    _look_in(os.getcwd())
    try:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}")
    except ModuleNotFoundError as error:
        raise CommandError(f"{text}: {error}: name a module or a .py file", usage=True) from error
    with _one_line(text):
        return importlib.import_module(module)


def _load_file(text: str, path: str) -> ModuleType:
    if not os.path.isfile(path):
        raise CommandError(f"{text}: there is no file {path}", usage=True)
    _look_in(os.path.dirname(os.path.abspath(path)))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    with _one_line(text):
        spec.loader.exec_module(module)
    return module


def _look_in(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


@contextmanager
def _one_line(text: str) -> Iterator[None]:
    """Make an exception of the program one line that says where it was raised."""
    try:
        yield
    except CommandError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())
        raise CommandError(
            f"{text}: {type(error).__name__}: {said} ({last.filename}, line {last.lineno})"
        ) from error
