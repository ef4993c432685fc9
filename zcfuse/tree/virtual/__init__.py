"""The tree that shows a `Dir` of a program, and what it is read from."""

from zcfuse.tree.virtual._nodes import DirNode
from zcfuse.tree.virtual._tree import VirtualTree

__all__ = ["DirNode", "VirtualTree"]
