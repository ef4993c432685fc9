"""Loads a tree from a Python module: ``MODULE:NAME`` is a Tree, a Dir or a function for one."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import TYPE_CHECKING, Final

from zcfuse.cli._errors import CommandError

if TYPE_CHECKING:
    from zcfuse.tree import Tree

_NAME: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_module_name(text: str) -> bool:
    """Say whether a SOURCE names a tree in a module and no file."""
    return _NAME.fullmatch(text) is not None and not os.path.lexists(text)


def load_module_tree(text: str) -> Tree:
    """Import a module, from the working directory too, and return its tree.

    Raises:
        CommandError: the module or its tree is missing, or the object is no tree.
    """
    from zcfuse.tree import Dir, Tree, VirtualTree

    module, _, name = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CommandError(
            f"{text}: {error}: name a module and a tree in it", usage=True
        ) from error
    shown = found() if callable(found) else found
    if isinstance(shown, Dir):
        return VirtualTree(shown)
    if not isinstance(shown, Tree):
        raise CommandError(f"{text}: not a Dir or a Tree but {shown!r:.80}", usage=True)
    return shown
