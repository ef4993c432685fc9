"""Operations over a mirror of a directory, with a data path that only records calls."""

import pytest

from tests.fuse.fakes import Leases, Reply
from zcfuse.fuse._operations import Operations
from zcfuse.tree import Mirror


@pytest.fixture
def leases():
    return Leases()


@pytest.fixture
def operations(source, leases):
    tree = Mirror(source)
    operations = Operations(tree, cache_timeout=7.5, leases=leases, readdir_reply=Reply())
    yield operations
    operations.close()
    tree.close()
