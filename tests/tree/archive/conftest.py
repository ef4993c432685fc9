import pytest

from zcfuse.tree.archive import _identity, indexing_process


@pytest.fixture(autouse=True, scope="session")
def one_process():
    """One process that indexes for all tests, since each start takes a fraction of a second."""
    with indexing_process():
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A separate cache directory; also skips the wait for young files before indexing."""
    path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    monkeypatch.setattr(_identity, "tick_ns", lambda _: 0)
    return path
