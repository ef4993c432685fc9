import gc
import os
import subprocess
import sys

import pytest

from tests.support import skip_unless
from zcfuse.linux import NEAR_MOUNTS
from zcfuse.tree import Mirror

CHILD_SECONDS = 60


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.mkdir()
    return path


@pytest.fixture(params=["openat2", "walk"])
def mirror(source, request):
    """A mirror of `source`, by openat2 and by walking name by name."""
    with_openat2 = request.param == "openat2"
    tree = Mirror(source, openat2=with_openat2)
    yield tree
    tree.close()


@pytest.fixture
def descriptors():
    """Require that a test leaves the set of open descriptors unchanged.

    The process keeps one descriptor of its mount table, which the first question opens. A caught
    exception keeps the directories that its frames had open.
    """
    NEAR_MOUNTS.is_near(0)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def run_child(program, *arguments, prefix=(), seconds=CHILD_SECONDS):
    """Run a separate Python program with a time-out; return its output."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program, *map(os.fspath, arguments)],
        capture_output=True,
        timeout=seconds,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def child():
    return run_child


@pytest.fixture
def child_with_mounts():
    """Run a program in a new mount namespace, so that its mounts end with it."""
    skip_unless("root", "private mounts")

    def run(program, *arguments):
        return run_child(program, *arguments, prefix=("unshare", "-m"))

    return run
