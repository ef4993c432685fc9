"""Any sequence of operations returns the values and errnos of the backing directory.

The reference is a read-only bind mount of the backing directory (docs/semantics.md, "Operations",
"Read-only"), so the sequences include operations that would change something.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.client import Pair
from tests.integration.conftest import PASSTHROUGH, kernel_mount, pair_of, serving, write
from tests.support import requires, skip_unless

pytestmark = requires("mounting", "root")

FILES = ["file", "empty", "sparse", "dir/inner"]
OTHERS = ["", "dir", "dir/empty", "link", "to_dir", "dangling", "loop", "missing", "file/x"]
NAMES = st.sampled_from([*FILES, *OTHERS, "dir/..", "to_dir/inner", "dir/missing", "link/x"])
SLOTS = st.integers(0, 2)
NUMBERS = st.one_of(st.integers(-3, 20_000), st.sampled_from([4096, 1 << 20, 1 << 32, 1 << 42]))
FLAGS = (
    st.lists(
        st.sampled_from(
            [
                *("os.O_RDONLY", "os.O_DIRECTORY", "os.O_NOFOLLOW", "os.O_PATH", "os.O_NOATIME"),
                *("os.O_NONBLOCK", "os.O_APPEND", "os.O_EXCL", "os.O_WRONLY", "os.O_RDWR"),
                *("os.O_CREAT", "os.O_TRUNC"),
            ]
        ),
        max_size=2,
        # Both flags together mean an open for ioctl(2) only. A read-only filesystem refuses that;
        # the native side is a read-only bind mount, which allows it.
    )
    .filter(lambda names: not {"os.O_WRONLY", "os.O_RDWR"} <= set(names))
    .map(lambda names: " | ".join(["os.O_RDONLY", *names]))
)
ATTRIBUTES = st.sampled_from(["user.zcfuse", "user.missing", "system.posix_acl_access", "odd"])
WHENCES = st.sampled_from(["SEEK_SET", "SEEK_CUR", "SEEK_END", "SEEK_DATA", "SEEK_HOLE"])

OPERATIONS = st.one_of(
    st.builds("fds[{}] = os.open(p('{}'), {})".format, SLOTS, NAMES, FLAGS),
    st.builds("os.pread(fds[{}], {}, {})".format, SLOTS, st.integers(0, 50_000), NUMBERS),
    st.builds("os.read(fds[{}], {})".format, SLOTS, st.integers(0, 50_000)),
    st.builds("seek(fds[{}], {}, os.{})".format, SLOTS, NUMBERS, WHENCES),
    st.builds("fields_of(os.fstat(fds[{}]))".format, SLOTS),
    st.builds("sorted(os.listdir(fds[{}]))".format, SLOTS),
    st.builds("fields_of(os.stat('{1}', dir_fd=fds[{0}]))".format, SLOTS, NAMES),
    st.builds("os.ftruncate(fds[{}], {})".format, SLOTS, NUMBERS),
    st.builds("os.pwrite(fds[{}], b'x', {})".format, SLOTS, NUMBERS),
    st.builds("os.posix_fallocate(fds[{}], 0, 1)".format, SLOTS),
    st.builds("os.fsync(fds[{}])".format, SLOTS),
    st.builds("os.fchmod(fds[{}], 0o600)".format, SLOTS),
    st.builds("os.close(fds[{}])".format, SLOTS),
    st.builds("attributes('{}')".format, NAMES),
    st.builds("fields_of(os.stat(p('{}')))".format, NAMES),
    st.builds("os.readlink(p('{}'))".format, NAMES),
    st.builds("entries('{}')".format, NAMES),
    st.builds("os.access(p('{}'), {})".format, NAMES, st.integers(0, 7)),
    st.builds("xattrs('{}')".format, NAMES),
    st.builds("os.getxattr(p('{}'), '{}')".format, NAMES, ATTRIBUTES),
    st.builds("os.setxattr(p('{}'), '{}', b'v')".format, NAMES, ATTRIBUTES),
    st.builds("os.removexattr(p('{}'), '{}')".format, NAMES, ATTRIBUTES),
    st.builds("os.unlink(p('{}'))".format, NAMES),
    st.builds("os.rmdir(p('{}'))".format, NAMES),
    st.builds("os.mkdir(p('{}'))".format, NAMES),
    st.builds("os.mknod(p('{}'))".format, NAMES),
    st.builds("os.symlink('file', p('{}'))".format, NAMES),
    st.builds("os.link(p('{}'), p('{}'))".format, NAMES, NAMES),
    st.builds("os.rename(p('{}'), p('{}'))".format, NAMES, NAMES),
    st.builds("os.chmod(p('{}'), 0o600)".format, NAMES),
    st.builds("os.chown(p('{}'), 1, 1)".format, NAMES),
    st.builds("os.truncate(p('{}'), {})".format, NAMES, NUMBERS),
    st.builds("os.utime(p('{}'))".format, NAMES),
)
# Positions in a directory differ between filesystems.
SEEK = """
def seek(fd, offset, whence):
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        return os.lseek(fd, offset, whence)
"""
# An unused slot is EBADF on both sides.
BEGIN = "fds = {slot: 1_000_000 for slot in range(3)}"
END = """
for fd in fds.values():
    try:
        os.close(fd)
    except OSError:
        pass
"""


def make_tree(source: str) -> None:
    os.makedirs(f"{source}/dir/empty")
    os.setxattr(write(source, "file", bytes(range(256)) * 150), "user.zcfuse", b"value")
    write(source, "empty")
    write(source, "dir/inner", b"inner")
    os.truncate(write(source, "sparse", b"data"), 1 << 20)
    with open(f"{source}/sparse", "r+b") as file:
        file.seek(300_000)
        file.write(b"in the middle")
    links = {"link": "file", "to_dir": "dir", "dangling": "missing", "loop": "loop"}
    for name, target in links.items():
        os.symlink(target, f"{source}/{name}")


# By `naive` and `upcall` Python answers everything except READ, by the others the data path does.
@pytest.fixture(scope="module", params=["naive", "upcall", "pool", "splice", PASSTHROUGH])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    skip_unless("mounting", "root")
    base = tmp_path_factory.mktemp("sequences")
    source, reference = str(base / "source"), str(base / "reference")
    os.mkdir(source)
    os.mkdir(reference)
    make_tree(source)
    if request.param == "naive":
        # It has other inode numbers ("Inode numbers").
        hide = "FIELDS.remove('ino'); entries = lambda name: sorted(os.listdir(p(name)))"
    else:
        hide = "None"
    with (
        kernel_mount("--bind", "-o", "ro,noatime", source, reference),
        serving(base, source, "--path", request.param, "--cache-timeout", "0") as daemon,
        pair_of(daemon, reference=reference) as pair,
    ):
        pair.same(SEEK)
        pair.same(hide)
        yield pair


@settings(deadline=None, max_examples=100)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=15))
def test_a_sequence_of_operations_gives_what_it_gives_natively(
    pair: Pair, operations: list[str]
) -> None:
    pair.same(BEGIN)
    for operation in operations:
        pair.same(operation)
    pair.same(END)


CHANGES = [
    "os.open(p('new'), os.O_CREAT | os.O_EXCL | os.O_WRONLY)",
    "os.open(p('file'), os.O_RDWR)",
    "os.open(p('file'), os.O_WRONLY | os.O_TRUNC)",
    "os.open(p('file'), os.O_RDONLY | os.O_TRUNC)",
    "os.open(root, os.O_TMPFILE | os.O_RDWR)",
    "os.truncate(p('file'), 0)",
    "os.mkdir(p('new'))",
    "os.mkfifo(p('new'))",
    "os.symlink('file', p('new'))",
    "os.link(p('file'), p('new'))",
    "os.unlink(p('file'))",
    "os.rmdir(p('dir/empty'))",
    "os.rename(p('file'), p('new'))",
    "os.chmod(p('file'), 0)",
    "os.chown(p('file'), 1, 1)",
    "os.utime(p('file'))",
    "os.setxattr(p('file'), 'user.new', b'')",
    "os.removexattr(p('file'), 'user.zcfuse')",
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_would_change_the_tree_is_refused_as_on_a_read_only_filesystem(
    pair: Pair, change: str
) -> None:
    assert pair.same(change) == "EROFS"


def test_an_open_file_cannot_be_written_by_any_way(pair: Pair) -> None:
    pair.same("fd = os.open(p('file'), os.O_RDONLY)")
    pair.same("os.write(fd, b'x')")
    pair.same("os.ftruncate(fd, 0)")
    pair.same("mmap.mmap(fd, 4096)[0]")
    pair.same("os.posix_fallocate(fd, 0, 1 << 20)")
    assert pair.same("os.utime(fd)") == "EROFS"
    pair.same("os.close(fd)")
