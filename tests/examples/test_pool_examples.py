"""The examples that place new files do what their first paragraphs say."""

import os
from pathlib import Path

import pytest

from tests.examples.conftest import DEADLINE_S, Programs
from tests.examples.test_tree_examples import end
from tests.support import eventually, requires

pytestmark = requires("root")


@pytest.fixture
def tiers(tmp_path: Path) -> tuple[Path, Path]:
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    fast.mkdir()
    slow.mkdir()
    return fast, slow


def test_a_file_moves_to_the_slow_tier_and_returns_without_a_client_noticing(
    programs: Programs, mountpoint: str, tiers: tuple[Path, Path]
) -> None:
    fast, slow = tiers
    process = programs.start("tiers.py", str(fast), str(slow), mountpoint, "1")
    programs.wait_until_mounted(process)
    shown = Path(mountpoint) / "d" / "file"
    shown.parent.mkdir()
    shown.write_bytes(b"bytes")
    assert (fast / "d" / "file").exists()
    with shown.open("rb") as held:
        assert eventually((slow / "d" / "file").exists, DEADLINE_S)
        assert eventually(lambda: not (fast / "d" / "file").exists(), DEADLINE_S)
        assert held.read() == b"bytes"

    def has_returned() -> bool:
        assert shown.read_bytes() == b"bytes"
        return (fast / "d" / "file").exists()

    assert eventually(has_returned, DEADLINE_S)
    assert os.listdir(shown.parent) == ["file"]
    end(process)


def test_an_archive_takes_files_and_keeps_them(
    programs: Programs, mountpoint: str, tiers: tuple[Path, Path]
) -> None:
    process = programs.start("write_once.py", *map(str, tiers), mountpoint)
    programs.wait_until_mounted(process)
    kept = Path(mountpoint) / "year" / "report"
    kept.parent.mkdir()
    kept.write_bytes(b"final")
    for change in (kept.unlink, lambda: kept.write_bytes(b""), lambda: kept.rename(f"{kept}2")):
        with pytest.raises(PermissionError):
            change()
    assert kept.read_bytes() == b"final"
    assert [path.read_bytes() for tier in tiers for path in tier.rglob("report")] == [b"final"]
    end(process)
