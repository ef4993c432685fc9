"""Directories of the tests that other users can reach."""

import os
import tempfile


def let_everyone_reach(path: str | os.PathLike[str]) -> None:
    """Make `path` and each directory between it and the temporary directory readable for all."""
    end = os.path.realpath(tempfile.gettempdir())
    path = os.path.realpath(path)
    while path != end and path != "/":
        os.chmod(path, os.stat(path).st_mode | 0o755)
        path = os.path.dirname(path)
