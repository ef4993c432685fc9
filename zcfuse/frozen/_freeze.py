"""Freezing: from a tree to the file of its image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import msgspec

from zcfuse.frozen._about import About, digest_of, encoded, header_of
from zcfuse.frozen._image_file import ImageFile
from zcfuse.frozen._layout import Layout, OtherLayoutNeededError
from zcfuse.frozen._walk import Options, Reason, Walk
from zcfuse.frozen._writer import ImageWriter
from zcfuse.tree import Tree


class Summary(msgspec.Struct, frozen=True):
    """The contents of an image; `left_out` is empty unless the caller asked to leave out."""

    about: About
    image_bytes: int
    seconds: float
    left_out: Sequence[Reason]


def freeze(
    tree: Tree,
    fd: int,
    options: Options,
    progress: Callable[[int], None] = lambda done: None,
) -> Summary:
    """Write the image of a tree; blocking, to be called in a thread.

    Parameters:
        tree: what to freeze. Its root must not depend on who asks.
        fd: an empty file, open for reading and writing; it stays the caller's.
        options: how.
        progress: called now and then with the number of entries so far.

    Raises:
        FreezeError: something of the tree cannot be frozen, and was not to be left out.
        OSError: the tree cannot be read, or the image not written.
    """
    began = time.monotonic()
    layout = Layout()
    while True:
        writer = ImageWriter(fd, layout)
        walk = Walk(tree, writer, options, progress)
        try:
            about = walk.run()
            break
        except OtherLayoutNeededError as error:
            layout = error.needed
            os.ftruncate(fd, 0)
    _describe(writer, fd, about)
    size = os.fstat(fd).st_size
    return Summary(about, size, time.monotonic() - began, walk.left_out.all)


def _describe(writer: ImageWriter, fd: int, about: About) -> None:
    """Write what the image says of itself, and last the bytes that make it an image."""
    offset, size = writer.append([encoded(about)])
    image = ImageFile(f"/proc/self/fd/{fd}")
    try:
        digest = digest_of(image)
    finally:
        image.close()
    os.pwrite(fd, header_of(offset, size, digest), 0)
    os.fsync(fd)
