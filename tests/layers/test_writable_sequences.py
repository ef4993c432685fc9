"""Any sequence of changes of a union gives what it gives on the kernel's overlayfs.

The results, the errnos and the tree are compared; then each of the two mounts what the other left.
Files open for reading only are left out: overlayfs lets them see the copy, a union does not
(docs/layers.md, "Changing a union").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.change_sequences import (
    CLOSE_FILES,
    HELPERS,
    NO_FILES,
    changes,
    open_flags,
)
from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH
from tests.layers import writable
from tests.support import requires, skip_unless

pytestmark = requires("mounting", "root", "overlay layers")

CASES = 300
NAMES = st.sampled_from(
    ["a", "b", "c", "d", "d/a", "d/e", "d/e/a", "d/x", "e", "e/b", "missing/a", "a/x", "link"]
)
FLAGS = open_flags(
    ["os.O_WRONLY", "os.O_RDWR"],
    ["0", "os.O_CREAT", "os.O_CREAT | os.O_EXCL", "os.O_TRUNC", "os.O_APPEND"],
)
OPERATIONS = st.one_of(
    changes(NAMES, FLAGS, [1, 2, 3, 4]),
    st.builds("content('{}')".format, NAMES),
    st.builds("rmtree('{}')".format, st.sampled_from(["d", "d/e", "e"])),
    st.builds("os.mknod(at('{}'), stat.S_IFCHR, 0)".format, NAMES),
    st.builds("os.setxattr(at('{}'), 'trusted.overlay.opaque', b'y')".format, NAMES),
    st.builds("sorted(os.listxattr(at('{}')))".format, NAMES),
)
# The links of a directory say whether it has a copy; a refused change may have made one.
UNION_HELPERS = (
    HELPERS
    + """
def seen(s):
    directory = stat.S_ISDIR(s.st_mode)
    size, links = (0, 1) if directory else (s.st_size, s.st_nlink)
    return oct(s.st_mode), s.st_uid, s.st_gid, links, size
current = 0
def at(name):
    return p(f'case{current}/{name}')
def content(name):
    return digest(open(os.open(at(name), os.O_RDONLY | os.O_NONBLOCK), 'rb').read())
def rmtree(name):
    # It would wait for the writer of a FIFO.
    return os.path.isdir(at(name)) and shutil.rmtree(at(name))
def tree(case):
    found = []
    for directory, names, files in sorted(os.walk(p(f'case{case}'))):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            data = open(path, 'rb').read() if stat.S_ISREG(status.st_mode) else b''
            when = 0 if stat.S_ISDIR(status.st_mode) or status.st_mtime > 10**9 else status.st_mtime
            xattrs = sorted(os.listxattr(path, follow_symlinks=False))
            found.append((os.path.relpath(path, p('')), seen(status), digest(data), when, xattrs))
    return found
"""
)


def make_layers(above: Path) -> list[str]:
    """Two layers, with the same files for each example."""
    for case in range(CASES):
        top, bottom = above / "top" / f"case{case}", above / "bottom" / f"case{case}"
        writable.write(top / "a", b"a" * 5000)
        writable.write(top / "d" / "a", b"top", 0o4755)
        writable.write(bottom / "b", b"b" * 9000)
        writable.write(bottom / "d" / "a", b"bottom")
        writable.write(bottom / "d" / "e" / "a", b"deep")
        writable.write(bottom / "d" / "x", b"x")
        (bottom / "e").mkdir()
        os.setxattr(bottom / "b", "user.x", b"below")
        os.utime(bottom / "b", ns=(1, 2 * 10**9))
        os.symlink("b", top / "link")
    return ["top", "bottom"]


@pytest.fixture(scope="module", params=["pool", PASSTHROUGH, "redirects"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    skip_unless("mounting", "root", "overlay layers")
    redirects = request.param == "redirects"
    options = ("--redirect-dir",) if redirects else ("--path", request.param)
    kernel = ",redirect_dir=on" if redirects else ""
    above = tmp_path_factory.mktemp("union-sequences")
    layers = make_layers(above)
    with writable.both(above, layers, *options, kernel=kernel) as pair:
        pair.same(UNION_HELPERS)
        yield pair
    trees = f"[tree(case) for case in range({CASES})]"
    with (
        writable.union(above, layers, "theirs", "mnt2", *options) as daemon,
        writable.overlayfs(above, layers, "ours", "overlay2", kernel) as root,
    ):
        mount, native = Client(daemon.mountpoint, daemon), Client(root)
        try:
            swapped = Pair(mount, native)
            swapped.same(UNION_HELPERS)
            swapped.same(trees, timeout=120)
        finally:
            mount.close()
            native.close()


numbers = count()


@settings(deadline=None, max_examples=60)
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=20))
def test_a_sequence_of_changes_gives_what_overlayfs_gives(
    pair: Pair, operations: list[str]
) -> None:
    case = next(numbers) % CASES
    pair.same(f"current = {case}; {NO_FILES}")
    try:
        for operation in operations:
            pair.same(operation)
        pair.same(f"tree({case})")
    finally:
        pair.mount.outcome(CLOSE_FILES)
        pair.native.outcome(CLOSE_FILES)
