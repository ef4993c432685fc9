"""Smaller files to measure than those of `zcfuse bench`: these tests assert no time."""

import pytest


@pytest.fixture(autouse=True)
def small_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The large file of a temporary tree has 16 MiB, instead of 256."""
    monkeypatch.setattr("zcfuse.bench._sources._LARGE_FILE_BYTES", 16 << 20)
