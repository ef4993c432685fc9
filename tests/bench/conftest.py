"""Smaller files to measure than those of `zcfuse bench`: these tests assert no time."""

import os
from pathlib import Path
from typing import Final

import pytest

from zcfuse.bench import SourceTree, survey

_FILES: Final = 25


@pytest.fixture(autouse=True)
def small_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large file of a temporary tree has 16 MiB, instead of 256."""
    monkeypatch.setattr("zcfuse.bench._sources._LARGE_FILE_BYTES", 16 << 20)


@pytest.fixture
def tree(tmp_path: Path) -> SourceTree:
    """Small files, and one that counts as large."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "large").write_bytes(os.urandom(4 << 20))
    for index in range(_FILES):
        (source / "d" / f"{index:02}").write_bytes(os.urandom(16384))
    return survey(str(source), _FILES)
