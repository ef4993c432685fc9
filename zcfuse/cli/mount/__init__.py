"""``zcfuse mount``, and ``mount.fuse.zcfuse`` for mount(8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zcfuse._lazy import lazy

if TYPE_CHECKING:
    from zcfuse.cli.mount._archives import KEEP as KEEP
    from zcfuse.cli.mount._archives import ArchiveOptions as ArchiveOptions
    from zcfuse.cli.mount._archives import load_archive as load_archive
    from zcfuse.cli.mount._archives import load_archives as load_archives
    from zcfuse.cli.mount._command import mount as mount
    from zcfuse.cli.mount._libraries import library_trouble as library_trouble
    from zcfuse.cli.mount._manifest import load as load
    from zcfuse.cli.mount._options import OPTIONS as OPTIONS
    from zcfuse.cli.mount._progress import Progress as Progress
    from zcfuse.cli.mount._shown import ChosenSources as ChosenSources
    from zcfuse.cli.mount._shown import directories_of as directories_of
    from zcfuse.cli.mount._shown import load_layers as load_layers
    from zcfuse.cli.mount._shown import made_layers as made_layers
else:
    __getattr__ = lazy(
        __name__,
        {
            "_archives": (
                "KEEP",
                "ArchiveOptions",
                "load_archive",
                "load_archives",
            ),
            "_command": ("mount",),
            "_libraries": ("library_trouble",),
            "_manifest": ("load",),
            "_options": ("OPTIONS",),
            "_progress": ("Progress",),
            "_shown": ("ChosenSources", "directories_of", "load_layers", "made_layers"),
        },
    )
