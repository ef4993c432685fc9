"""Finds and opens the images that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse.cli._errors import CommandError

if TYPE_CHECKING:
    from zcfuse.frozen import FrozenImage, FrozenTree


def is_image_file(path: str) -> bool:
    """Say whether a file is an image, by its first bytes; an unreadable file is not an image."""
    from zcfuse.frozen import is_image

    try:
        with open(path, "rb") as file:
            return is_image(file.read(16))
    except OSError:
        return False


def load_image(path: str) -> FrozenTree:
    """Return the tree of an image; raise CommandError with the reason in one line."""
    from zcfuse.frozen import FrozenTree, ImageError

    try:
        return FrozenTree(path)
    except ImageError as error:
        raise CommandError(str(error), usage=error.usage) from error


def open_image(path: str) -> FrozenImage:
    """Return an intact image; raise CommandError as `load_image`."""
    from zcfuse.frozen import FrozenImage, ImageError

    try:
        return FrozenImage(path)
    except ImageError as error:
        raise CommandError(str(error), usage=error.usage) from error
