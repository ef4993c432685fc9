import pytest

from zcfuse.tree.archive import _identity


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache directory of the test's own; files need not grow old before they are indexed."""
    path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    monkeypatch.setattr(_identity, "TICK_SECONDS", 0)
    monkeypatch.setattr(_identity, "COARSE_TICK_SECONDS", 0)
    return path
