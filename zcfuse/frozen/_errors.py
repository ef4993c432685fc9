"""The errors of images, and of trees that cannot become one."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be used; the text is one line that names the image and the remedy.

    Parameters:
        usage: True if the file is no image at all.
    """

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        self.usage = usage


class FreezeError(Exception):
    """A tree cannot be frozen; the text is one line that says why."""


class DamagedImageError(ImageError):
    """The bytes of an image contradict one another; the text says which."""
