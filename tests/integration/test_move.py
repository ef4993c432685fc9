"""`Mount.move`: new opens use the new file, and readers of the old one are undisturbed."""

from __future__ import annotations

import os

import pytest

from tests.integration.conftest import Shows, write
from tests.support import requires

pytestmark = requires("mounting")

BYTES = os.urandom(300_000)


@pytest.mark.parametrize("path", ["naive", "pool", "auto"])
def test_a_file_moves_while_it_is_open(source: str, shows: Shows, path: str) -> None:
    old, new = write(source, "old", BYTES), write(source, "new", BYTES[::-1])
    os.chmod(old, 0o640)
    os.utime(new)
    program, client = shows(
        "tree = Dir({'sub': Dir({'file': old})})\noptions = MountOptions(path=path)",
        old=old,
        new=new,
        path=path,
    )
    shown = "[attributes('sub/file')[name] for name in ('mode', 'uid', 'gid', 'size', 'mtime_ns')]"
    before = client.value(shown)
    client.value("kept = os.open(p('sub/file'), os.O_RDONLY)")
    client.value("mapped = mmap.mmap(kept, 0, prot=mmap.PROT_READ)")
    program.run("await served.move('sub/file', new)")
    assert client.value("content('sub/file')") == BYTES[::-1]
    assert client.value("os.pread(kept, 1 << 20, 0)") == BYTES
    assert client.value("mapped[:]") == BYTES
    assert client.value(shown) == before


def test_what_cannot_be_moved_is_refused_and_stays(source: str, shows: Shows) -> None:
    old, short = write(source, "old", BYTES), write(source, "short", b"")
    program, client = shows(
        "tree = Dir({'file': old, 'mirror': Mirror(where)})", old=old, where=source
    )
    body = (
        "try:\n    await served.move({!r}, {!r})\nexcept Exception as error:\n"
        "    return type(error).__name__"
    )
    told = program.run(body.replace("type(error).__name__", "str(error)").format("mirror/old", old))
    assert told.startswith("'mirror/old' leads through <Mirror of ")
    assert told.endswith(">: only a File that a Dir holds can be moved")
    assert program.run(body.format("file", short)) == "ValueError"
    assert program.run(body.format("file", source + "/missing")) == "FileNotFoundError"
    assert program.run(body.format("missing", old)) == "FileNotFoundError"
    assert program.run(body.format("missing/file", old)) == "FileNotFoundError"
    assert program.run(body.format("mirror/old", old)) == "TypeError"
    assert program.run(body.format("mirror", old)) == "TypeError"
    assert client.value("content('file')") == BYTES
