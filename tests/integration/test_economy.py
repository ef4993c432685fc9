"""A walk and a read of 20,000 files by a daemon with at most 256 descriptors."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.integration.conftest import serving, write
from tests.integration.counts import Counts, counts, eventually
from tests.support import Daemon, requires

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

DIRECTORIES = 40
FILES = 500
DESCRIPTORS = 256
WALK_S = 150

# Walks DIRECTORY and reads every file, which contains its name; prints their number.
WALK = """
import os, sys
found = 0
for where, _, names in os.walk(sys.argv[1]):
    for name in names:
        fd = os.open(os.path.join(where, name), os.O_RDONLY)
        assert os.read(fd, 100) == name.encode()
        os.close(fd)
        found += 1
print(found)
"""


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Directories of small files, removed at the end."""
    base = tmp_path_factory.mktemp("forest")
    for directory in range(DIRECTORIES):
        at = base / f"directory-{directory}"
        at.mkdir()
        parent = os.open(at, os.O_RDONLY)
        for n in range(FILES):
            name = f"file-{directory}-{n}"
            fd = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=parent)
            os.write(fd, name.encode())
            os.close(fd)
        os.close(parent)
    yield str(base)
    shutil.rmtree(base)


@pytest.fixture(scope="module", params=["--directory-lease", "--no-directory-lease"])
def daemon(
    request: pytest.FixtureRequest, forest: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    base = tmp_path_factory.mktemp("economy")
    options = ("--cache-timeout", "1000", request.param)
    with serving(base, forest, *options, under=["prlimit", f"--nofile={DESCRIPTORS}"]) as daemon:
        yield daemon


def known(found: Counts) -> int:
    """Nodes in both planes."""
    return int(found.control["nodes"]) + int(found.datapath["directories"]["nodes"])


def resident(daemon: Daemon) -> int:
    """Resident bytes of the daemon."""
    with open(f"/proc/{daemon.pid}/status") as file:
        found = re.search(r"^VmRSS:\s*(\d+) kB", file.read(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def test_twenty_thousand_files_are_walked_and_read_with_few_descriptors(
    daemon: Daemon, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resident(daemon)
    result = daemon.python(WALK, daemon.mountpoint, timeout=WALK_S)
    assert int(result.stdout) == DIRECTORIES * FILES
    after = counts(daemon)
    # The kernel may have forgotten some by now, under memory pressure or on request.
    nodes, grown = known(after), resident(daemon) - before
    with capsys.disabled():
        print(f" [{nodes} nodes known, {grown / nodes:.0f} bytes each]", end=" ")
    assert after.request("OPEN") >= DIRECTORIES * FILES
    assert not after.control["errors"]
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < DESCRIPTORS


@pytest.mark.parametrize("lease", ["--directory-lease", "--no-directory-lease"])
def test_nodes_that_the_kernel_forgets_are_given_back(mounted, pairs, source, lease) -> None:
    names = [write(source, f"file-{n}") for n in range(500)]
    daemon = mounted("--cache-timeout", "0", lease)
    pair = pairs(daemon)
    look = "[os.path.lexists(p(f'file-{n}')) for n in range(500)]"
    assert all(pair.same(look))
    assert known(counts(daemon)) > 500
    for name in names:
        os.unlink(name)
    assert not any(pair.same(look))
    assert eventually(lambda: known(counts(daemon)) < 10)
