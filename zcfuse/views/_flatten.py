"""All files below a directory in one directory."""

from __future__ import annotations

from zcfuse.arguments import require_type
from zcfuse.tree import Dir
from zcfuse.views._files import Files, files_of


def flatten(files: Files, separator: str = "__") -> Dir:
    """Return a Dir that holds all files side by side: ``a/b.jpg`` is ``a__b.jpg``.

    Parameters:
        files: a directory, paths, or paths by name.
        separator: what stands in the place of each slash.

    Raises:
        OSError: a directory cannot be listed.
        ValueError: two files get one name, or the separator has a slash.
    """
    require_type("separator", separator, str, "text")
    if "/" in separator:
        raise ValueError(f"separator={separator!r}: give one without a slash")
    flat: dict[str, str] = {}
    for name, path in files_of(files).items():
        shown = name.replace("/", separator)
        if shown in flat:
            raise ValueError(f"{flat[shown]!r} and {path!r} get one name: choose another separator")
        flat[shown] = path
    return Dir(flat)
