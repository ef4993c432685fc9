"""An index beside an archive whose numbers are forged and whose checksums are right.

The archive's owner may write such an index. The mount may show anything of that archive, but it
must answer, and the daemon must go on.
"""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Final

import pytest

from tests.support import Mounter, requires
from tests.tree.archive.support import directory, hard_link, member, symlink, write
from zcfuse.tree.archive import _kept
from zcfuse.tree.archive._identity import identify
from zcfuse.tree.archive._indexer import parsed
from zcfuse.tree.archive._place import ArchivePlace

pytestmark = requires("fuse")

NUMBERS: Final = (0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
# Looks at everything in bounded depth: a forged directory may contain itself.
LOOK: Final = """
import os, sys
def look(path, depth):
    try:
        entries = list(os.scandir(path))
    except OSError:
        return
    for entry in entries[:50]:
        try:
            entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                os.readlink(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                if depth:
                    look(entry.path, depth - 1)
            else:
                with open(entry.path, "rb") as file:
                    file.read(1 << 20)
        except (OSError, ValueError):
            pass
look(sys.argv[1], 4)
"""


def forge(archive: Path, choose: random.Random) -> None:
    """Change a few numbers in a valid index, and keep it beside the archive."""
    place = ArchivePlace(archive)
    fd = place.open()
    try:
        identity = identify(place.path, fd)
        found, _ = parsed(place.path, fd, identity, lambda done, total: None, salvage=False)
    finally:
        os.close(fd)
    tables = {name: bytes(data) for name, data in found.items()}
    for _ in range(choose.choice((1, 2, 5))):
        name = choose.choice(("entries", "nodes", "pieces"))
        table = bytearray(tables[name])
        if len(table) < 8:
            continue
        kind = choose.choice(("<B", "<H", "<I", "<Q"))
        size = struct.calcsize(kind)
        value = choose.choice(NUMBERS) & (1 << 8 * size) - 1
        struct.pack_into(kind, table, choose.randrange(0, len(table) - size + 1), value)
        tables[name] = bytes(table)
    _kept.keep(_kept.beside(place.path), identity, tables)


@pytest.mark.parametrize("options", [(), ("--no-directory-lease",)], ids=["leased", "not leased"])
@pytest.mark.parametrize("seed", range(6))
def test_a_forged_index_beside_an_archive_ends_nothing(
    mounted: Mounter, tmp_path: Path, seed: int, options: tuple[str, ...]
) -> None:
    archive = write(
        tmp_path / "a.tar",
        directory("d"),
        member("d/f", data=b"x" * 70_000),
        member("d/g", data=b"y"),
        symlink("s", "d/f"),
        hard_link("h", "d/f"),
    )
    forge(archive, random.Random(seed))
    daemon = mounted("--keep-index", "beside", *options, source=str(archive))
    daemon.python(LOOK, daemon.mountpoint)
    daemon.run("stat", daemon.mountpoint)
    report = daemon.status()["tree"]["archives"]
    assert all(one["index_reused"] for one in report.values())
    daemon.unmount()
