"""Pushed changes of some sources of a mount, while others are timed (``coherence=``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.coherence.archives import write_archive
from tests.integration.client import Client
from tests.integration.conftest import Shows
from tests.integration.program import Program
from tests.support import DEADLINE_S, requires
from zcfuse import Mirror, MountOptions, mount
from zcfuse.options import RefusedOptionError

pytestmark = requires("mounting", "root")


def explained(program: Program, name: str) -> str:
    argv = [sys.executable, "-m", "zcfuse", "explain", program.path(name)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S).stdout


def _size(client: Client, name: str) -> int:
    return int(client.value(f"len(content({name!r}))"))


def test_one_source_of_a_program_is_pushed_while_another_is_timed(
    tmp_path: Path, shows: Shows
) -> None:
    for name in ("pushed", "timed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    program, client = shows(
        "tree = Dir({'pushed': Mirror(f'{base}/pushed', coherence='push'),"
        " 'timed': Mirror(f'{base}/timed')})",
        base=str(tmp_path),
    )
    assert _size(client, "pushed/file") == _size(client, "timed/file") == 0
    assert "until it changes" in explained(program, "pushed/file")
    assert "for 1 s" in explained(program, "timed/file")
    (tmp_path / "pushed" / "file").write_bytes(b"more")
    assert program.run("return await served.sync()")
    assert _size(client, "pushed/file") == 4


def test_a_union_of_a_program_is_timed_though_the_mount_pushes(
    tmp_path: Path, shows: Shows
) -> None:
    for name in ("upper", "lower"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").touch()
    program, client = shows(
        "tree = Union([f'{base}/upper', f'{base}/lower'], coherence='ttl')\n"
        "options = MountOptions(coherence='push')",
        base=str(tmp_path),
    )
    assert _size(client, "file") == 0
    assert "for 1 s" in explained(program, "file")


def test_directories_of_a_program_show_the_replaced_archives_of_unions_and_filters(
    tmp_path: Path, shows: Shows
) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "upper").touch()
    path = tmp_path / "archive.tar"
    write_archive(str(path), {"name": b"old"})
    source = f"""
archive, upper = {str(path)!r}, {str(tmp_path / "upper")!r}
tree = Dir({{"union": Union([upper, Archive(archive)]), "filter": Filter(Archive(archive))}})
options = MountOptions(coherence="push")
"""
    program, client = shows(source)
    look = "[(content(f'{one}/name'), sorted(os.listdir(p(one)))) for one in ('union', 'filter')]"
    assert client.value(look) == [(b"old", [b"name", b"upper"]), (b"old", [b"name"])]
    write_archive(str(path), {"name": b"new", "more": b""})
    assert program.run("return await served.sync()")
    assert client.value(look) == [
        (b"new", [b"more", b"name", b"upper"]),
        (b"new", [b"more", b"name"]),
    ]


def test_a_source_that_asks_for_pushes_after_the_start_is_timed(
    tmp_path: Path, shows: Shows
) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "file").touch()
    program, client = shows("tree = Dir()")
    program.run(f"tree.add('late', Mirror({str(tmp_path / 'late')!r}, coherence='push'))")
    assert _size(client, "late/file") == 0
    assert "for 1 s" in explained(program, "late/file")
    assert "nothing in it asked for that" in program.log()


async def test_a_source_that_asks_for_pushes_is_refused_where_these_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="coherence must be 'ttl' or 'push' or 'strict'"):
        Mirror(tmp_path, coherence="always")
    tree = Mirror(tmp_path, coherence="push")
    options = MountOptions(immutable=True)
    with pytest.raises(RefusedOptionError, match="an immutable tree has no changes"):
        async with mount(tree, tmp_path, options=options):
            pass
