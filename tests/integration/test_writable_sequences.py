"""Any sequence of changes gives the results, the errnos and the tree that it gives natively.

The reference is a second directory that the same operations change directly (docs/semantics.md,
"Writing").
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH, serving
from tests.support import requires, skip_unless

pytestmark = requires("mounting", "root")

NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/e", "d/e/a", "missing/a", "a/x", "link"])
SLOTS = st.integers(0, 2)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 20_000, 70_000])
SIZES = st.sampled_from([1, 100, 4096, 10_000])
MODES = st.sampled_from(["0o644", "0o4755", "0o2770", "0o6777", "0o1777", "0o000"])
FLAGS = st.builds(
    "{} | {}".format,
    st.sampled_from(["os.O_RDONLY", "os.O_WRONLY", "os.O_RDWR"]),
    st.sampled_from(
        [
            *("0", "os.O_CREAT", "os.O_CREAT | os.O_EXCL", "os.O_TRUNC", "os.O_APPEND"),
            *("os.O_CREAT | os.O_TRUNC", "os.O_CREAT | os.O_APPEND", "os.O_SYNC", "os.O_NOFOLLOW"),
        ]
    ),
)
OPERATIONS = st.one_of(
    st.builds("reopen({}, '{}', {})".format, SLOTS, NAMES, FLAGS),
    st.builds("os.pwrite(fds[{}], b'w' * {}, {})".format, SLOTS, SIZES, OFFSETS),
    st.builds("os.write(fds[{}], b'v' * {})".format, SLOTS, SIZES),
    st.builds("os.pread(fds[{}], {}, {})".format, SLOTS, SIZES, OFFSETS),
    st.builds("os.lseek(fds[{}], {}, os.SEEK_END)".format, SLOTS, OFFSETS),
    st.builds("os.ftruncate(fds[{}], {})".format, SLOTS, OFFSETS),
    st.builds("os.fchmod(fds[{}], {})".format, SLOTS, MODES),
    st.builds("os.fsync(fds[{}])".format, SLOTS),
    st.builds("os.posix_fallocate(fds[{}], {}, {})".format, SLOTS, OFFSETS, SIZES),
    st.builds("punch(fds[{}], {}, {})".format, SLOTS, OFFSETS, SIZES),
    st.builds(
        "os.copy_file_range(fds[{}], fds[{}], {}, 0, {})".format, SLOTS, SLOTS, SIZES, OFFSETS
    ),
    st.builds("seen(os.fstat(fds[{}]))".format, SLOTS),
    st.builds("seen(os.lstat(at('{}')))".format, NAMES),
    st.builds("os.mkdir(at('{}'), {})".format, NAMES, MODES),
    st.builds("os.rmdir(at('{}'))".format, NAMES),
    st.builds("os.unlink(at('{}'))".format, NAMES),
    st.builds("os.rename(at('{}'), at('{}'))".format, NAMES, NAMES),
    st.builds("renameat2('{}', '{}', {})".format, NAMES, NAMES, st.sampled_from([1, 2, 3])),
    st.builds("os.link(at('{}'), at('{}'))".format, NAMES, NAMES),
    st.builds("os.symlink('{}', at('{}'))".format, NAMES, NAMES),
    st.builds("os.mkfifo(at('{}'), {})".format, NAMES, MODES),
    st.builds("os.truncate(at('{}'), {})".format, NAMES, OFFSETS),
    st.builds("os.chmod(at('{}'), {})".format, NAMES, MODES),
    st.builds("os.chown(at('{}'), {}, -1)".format, NAMES, st.sampled_from([0, 7, -1])),
    st.builds("os.utime(at('{}'), ns=(5, {}))".format, NAMES, OFFSETS),
    st.builds("os.setxattr(at('{}'), 'user.x', b'v')".format, NAMES),
    st.builds("os.removexattr(at('{}'), 'user.x')".format, NAMES),
    st.builds("sorted(os.listdir(at('{}')))".format, NAMES),
)
# A FIFO would make an open wait for its other end.
HELPERS = """
import shutil
def at(name):
    return p('case/' + name)
def reopen(slot, name, flags):
    os.path.exists(fds[slot]) and os.close(fds[slot])
    fds[slot] = 1_000_000
    fds[slot] = os.open(at(name), flags | os.O_NONBLOCK, 0o666)
def punch(fd, offset, size):
    checked(libc.fallocate(fd, 3, ctypes.c_long(offset), ctypes.c_long(size)))
def renameat2(old, new, flags):
    checked(libc.renameat2(-100, at(old), -100, at(new), flags))
def seen(s):
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    return oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, size
def tree():
    found = []
    for directory, names, files in sorted(os.walk(p('case'))):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            data = open(path, 'rb').read() if stat.S_ISREG(status.st_mode) else b''
            found.append((os.path.relpath(path, p('case')), seen(status), digest(data)))
    return found
"""
BEGIN = "fds = {slot: 1_000_000 for slot in range(3)}; os.mkdir(p('case'))"
END = "[os.close(fd) for fd in fds.values() if fd != 1_000_000]; shutil.rmtree(p('case'))"


@pytest.fixture(scope="module", params=["pool", PASSTHROUGH])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    skip_unless("mounting", "root")
    base = tmp_path_factory.mktemp("writable-sequences")
    source, twin = str(base / "source"), str(base / "twin")
    os.mkdir(source)
    os.mkdir(twin)
    with serving(base, source, "--rw", "--path", request.param) as daemon:
        mount, native = Client(daemon.mountpoint, daemon), Client(twin)
        try:
            pair = Pair(mount, native)
            pair.same(HELPERS)
            yield pair
        finally:
            mount.close()
            native.close()


@settings(deadline=None, max_examples=60)
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=20))
def test_a_sequence_of_changes_gives_what_it_gives_natively(
    pair: Pair, operations: list[str]
) -> None:
    pair.same(BEGIN)
    try:
        for operation in operations:
            pair.same(operation)
        pair.same("tree()")
    finally:
        pair.mount.outcome(END)
        pair.native.outcome(END)
