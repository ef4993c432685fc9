"""A writable mount changes its directory as a client of the directory itself would.

The reference is a second directory with the same content, which the same source changes natively
(docs/semantics.md, "Writing").
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH, kernel_mount, serving, write
from tests.support import Mounter, OrdinaryUser, let_everyone_reach, requires, skip_unless

pytestmark = requires("mounting", "root")

STRANGER = 12_345
OPTIONS = ("--rw", "--allow-other", "--cache-timeout", "1")


def make_tree(directory: str) -> None:
    os.makedirs(f"{directory}/dir/sub")
    write(directory, "file", b"content" * 1000)
    write(directory, "dir/inner", b"inner")
    os.symlink("file", f"{directory}/link")
    os.mkdir(f"{directory}/open")
    os.chmod(f"{directory}/open", 0o777)


@pytest.fixture(scope="module", params=["pool", PASSTHROUGH])
def directories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The mount of one directory, and another like it."""
    skip_unless("mounting", "root")
    base = tmp_path_factory.mktemp("writable")
    let_everyone_reach(base)
    source, twin = str(base / "source"), str(base / "twin")
    for directory in (source, twin):
        os.mkdir(directory)
        make_tree(directory)
    with serving(base, source, *OPTIONS, "--path", request.param) as daemon:
        yield daemon.mountpoint, twin


@pytest.fixture
def pair(directories: tuple[str, str]) -> Iterator[Pair]:
    mount, native = (Client(directory) for directory in directories)
    yield Pair(mount, native)
    mount.close()
    native.close()


@pytest.fixture
def stranger(directories: tuple[str, str]) -> Iterator[Pair]:
    """Clients that are neither root nor the owner of anything."""
    mount, native = (Client(directory, uid=STRANGER) for directory in directories)
    yield Pair(mount, native)
    mount.close()
    native.close()


SHOWN = """
def shown(name):
    s = os.lstat(p(name))
    return oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, stat.S_ISDIR(s.st_mode) or s.st_size
"""


def test_a_new_file_is_there_with_its_bytes_and_belongs_to_its_creator(stranger: Pair) -> None:
    stranger.same(SHOWN)
    stranger.same("fd = os.open(p('open/own'), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)")
    stranger.same("os.write(fd, b'bytes')")
    stranger.same("os.fstat(fd).st_size")
    assert stranger.same("shown('open/own')")[1] == STRANGER
    stranger.same("os.close(fd)")
    assert stranger.same("content('open/own')") == b"bytes"


def test_the_umask_is_the_clients(pair: Pair) -> None:
    pair.same(SHOWN)
    pair.same("os.umask(0o027)")
    pair.same("os.close(os.open(p('open/masked'), os.O_CREAT | os.O_WRONLY, 0o666))")
    pair.same("os.mkdir(p('open/masked-dir'), 0o777)")
    assert pair.same("shown('open/masked')")[0] == "0o100640"
    assert pair.same("shown('open/masked-dir')")[0] == "0o40750"


def test_a_directory_that_sets_the_group_gives_it_to_what_is_made_in_it(pair: Pair) -> None:
    pair.same(SHOWN)
    pair.same("os.mkdir(p('grouped'))")
    pair.same("os.chown(p('grouped'), 0, 4321)")
    pair.same("os.chmod(p('grouped'), 0o2775)")
    pair.same("os.mkdir(p('grouped/dir'))")
    pair.same("os.close(os.open(p('grouped/file'), os.O_CREAT | os.O_WRONLY, 0o2775))")
    assert pair.same("shown('grouped/dir')")[2] == 4321
    pair.same("shown('grouped/file')")


def test_who_may_not_write_a_directory_makes_nothing_in_it(stranger: Pair) -> None:
    assert stranger.same("os.mkdir(p('dir/new'))") == "EACCES"
    assert stranger.same("os.unlink(p('file'))") == "EACCES"
    assert stranger.same("os.rename(p('dir/inner'), p('open/inner'))") == "EACCES"
    assert stranger.same("os.open(p('file'), os.O_WRONLY)") == "EACCES"
    assert stranger.same("os.truncate(p('file'), 0)") == "EACCES"
    assert stranger.same("os.chmod(p('file'), 0o777)") == "EPERM"


def test_a_file_that_was_opened_for_reading_first_can_be_opened_for_writing(pair: Pair) -> None:
    pair.same("reader = os.open(p('file'), os.O_RDONLY)")
    pair.same("writer = os.open(p('file'), os.O_RDWR)")
    pair.same("os.pwrite(writer, b'changed', 100)")
    assert pair.same("os.pread(reader, 7, 100)") == b"changed"
    pair.same("[os.close(fd) for fd in (reader, writer)]")


def test_size_and_times_are_right_at_once_behind_a_write(pair: Pair) -> None:
    pair.same("old = os.stat(p('dir/inner'))")
    pair.same("fd = os.open(p('dir/inner'), os.O_WRONLY | os.O_APPEND)")
    for number in range(3):
        pair.same("os.write(fd, b'more')")
        assert pair.same("os.stat(p('dir/inner')).st_size") == 5 + 4 * (number + 1)
        assert pair.same("os.fstat(fd).st_mtime_ns > old.st_mtime_ns")
    pair.same("os.close(fd)")


def test_an_unlinked_open_file_lives_on(pair: Pair) -> None:
    pair.same("fd = os.open(p('doomed'), os.O_CREAT | os.O_RDWR)")
    pair.same("os.unlink(p('doomed'))")
    pair.same("os.write(fd, b'still here')")
    assert pair.same("os.pread(fd, 20, 0)") == b"still here"
    assert pair.same("os.fstat(fd).st_nlink") == 0
    pair.same("os.fchmod(fd, 0o600)")
    pair.same("os.ftruncate(fd, 3)")
    assert pair.same("os.open(f'/proc/self/fd/{fd}', os.O_RDWR) >= 0")
    pair.same("os.close(fd)")


def test_what_is_held_by_its_path_alone_lives_on_when_its_name_is_gone(pair: Pair) -> None:
    pair.same("os.mkdir(p('gone'))")
    pair.same("os.close(os.open(p('gone-file'), os.O_CREAT | os.O_WRONLY))")
    pair.same("held = [os.open(p(name), os.O_PATH) for name in ('gone', 'gone-file')]")
    pair.same("os.rmdir(p('gone'))")
    pair.same("os.unlink(p('gone-file'))")
    pair.same("[os.fstat(fd).st_nlink for fd in held]")
    pair.same("os.stat('x', dir_fd=held[0])")
    pair.same("[os.close(fd) for fd in held]")


def test_what_is_open_below_a_directory_follows_its_rename(pair: Pair) -> None:
    pair.same("os.makedirs(p('before/below'))")
    pair.same("fd = os.open(p('before/below/file'), os.O_CREAT | os.O_RDWR)")
    pair.same("os.chdir(p('before/below'))")
    pair.same("os.rename(p('before'), p('after'))")
    pair.same("os.write(fd, b'moved')")
    pair.same("os.fchmod(fd, 0o640)")
    assert pair.same("os.stat('file').st_size") == 5
    pair.same("open('beside', 'w').close()")
    assert pair.same("sorted(os.listdir(p('after/below')))") == [b"beside", b"file"]
    pair.same("os.chdir('/')")
    pair.same("os.close(fd)")


def test_hard_links_are_one_file(pair: Pair) -> None:
    pair.same(SHOWN)
    pair.same("open(p('one'), 'w').write('one')")
    pair.same("os.link(p('one'), p('dir/two'))")
    assert pair.same("shown('one')")[3] == 2
    assert pair.same("os.path.samefile(p('one'), p('dir/two'))")
    pair.same("os.unlink(p('one'))")
    assert pair.same("shown('dir/two')")[3] == 1
    assert pair.same("content('dir/two')") == b"one"


RENAMEAT2 = """
def renameat2(old, new, flags):
    checked(libc.renameat2(-100, p(old), -100, p(new), flags))
"""


def test_names_are_exchanged_kept_and_whited_out_as_asked(pair: Pair) -> None:
    pair.same(RENAMEAT2)
    pair.same("open(p('left'), 'w').write('left')")
    pair.same("os.mkdir(p('right'))")
    pair.same("open(p('right/file'), 'w').write('right')")
    assert pair.same("renameat2('left', 'right', 1)") == "EEXIST"
    pair.same("renameat2('left', 'right', 2)")
    assert pair.same("content('right')") == b"left"
    assert pair.same("content('left/file')") == b"right"
    pair.same("renameat2('right', 'moved', 4)")
    assert pair.same("stat.S_ISCHR(os.lstat(p('right')).st_mode)")


def test_a_nameless_file_gets_a_name_by_link(pair: Pair) -> None:
    pair.same("fd = os.open(p('dir'), os.O_TMPFILE | os.O_RDWR, 0o600)")
    pair.same("os.write(fd, b'nameless')")
    pair.same("path = f'/proc/self/fd/{fd}'.encode()")
    pair.same("checked(libc.linkat(-100, path, -100, p('dir/named'), 0x400))")
    pair.same("os.close(fd)")
    assert pair.same("content('dir/named')") == b"nameless"


def test_holes_are_punched_and_found(pair: Pair) -> None:
    pair.same("fd = os.open(p('holes'), os.O_CREAT | os.O_RDWR)")
    pair.same("os.write(fd, b'x' * 65536)")
    pair.same("checked(libc.fallocate(fd, 3, ctypes.c_long(16384), ctypes.c_long(16384)))")
    assert pair.same("os.lseek(fd, 0, os.SEEK_HOLE)") == 16384
    assert pair.same("os.lseek(fd, 16384, os.SEEK_DATA)") == 32768
    assert pair.same("os.pread(fd, 1, 20000)") == b"\0"
    pair.same("os.posix_fallocate(fd, 65536, 4096)")
    assert pair.same("os.fstat(fd).st_size") == 69632
    assert pair.same("os.copy_file_range(fd, fd, 4096, 0, 131072)") == 4096
    pair.same("os.fsync(fd)")
    pair.same("os.fdatasync(fd)")
    pair.same("os.close(fd)")


def test_a_shared_mapping_writes_the_file(pair: Pair) -> None:
    pair.same("fd = os.open(p('mapped'), os.O_CREAT | os.O_RDWR)")
    pair.same("os.ftruncate(fd, 8192)")
    pair.same("mapping = mmap.mmap(fd, 8192)")
    pair.same("mapping[4000:4010] = b'by mapping'")
    pair.same("mapping.flush()")
    assert pair.same("os.pread(fd, 10, 4000)") == b"by mapping"
    pair.same("mapping.close()")
    pair.same("os.close(fd)")


# stat(1) asks for this time alone. A question for the access time too, as that of os.stat, makes
# the kernel ask for all of them after the mmap.
STORE = """
import subprocess
def modified(name):
    return subprocess.check_output(['stat', '--format=%Y', p(name)])
"""


def test_a_store_through_a_mapping_shows_in_the_times_at_once(pair: Pair) -> None:
    pair.same(STORE)
    pair.same("open(p('stored'), 'wb').write(bytes(8192))")
    pair.same("os.utime(p('stored'), (1, 1))")
    assert pair.same("modified('stored')") == b"1\n"
    pair.same("fd = os.open(p('stored'), os.O_RDWR)")
    pair.same("mapping = mmap.mmap(fd, 8192)")
    pair.same("mapping[:1] = b'x'; mapping.close(); os.close(fd)")
    assert pair.same("modified('stored') > b'1\\n'") is True


def test_attributes_of_all_kinds_are_set(pair: Pair) -> None:
    pair.same(SHOWN)
    pair.same("open(p('attributes'), 'w').close()")
    pair.same("os.utime(p('attributes'), ns=(1_000_000_001, 2_000_000_002))")
    assert pair.same("os.stat(p('attributes')).st_mtime_ns") == 2_000_000_002
    pair.same("os.chown(p('attributes'), 7, 8)")
    pair.same("os.chmod(p('attributes'), 0o4755)")
    pair.same("os.chown(p('attributes'), 9, -1)")
    assert pair.same("shown('attributes')")[0] == "0o100755"
    pair.same("os.setxattr(p('attributes'), 'user.name', b'value')")
    assert pair.same("os.setxattr(p('attributes'), 'user.name', b'', os.XATTR_CREATE)") == "EEXIST"
    assert pair.same("os.getxattr(p('attributes'), 'user.name')") == b"value"
    pair.same("os.removexattr(p('attributes'), 'user.name')")
    assert pair.same("os.removexattr(p('attributes'), 'user.name')") == "ENODATA"
    pair.same("os.symlink('nowhere', p('a-link'))")
    pair.same("os.chown(p('a-link'), 5, 6, follow_symlinks=False)")
    pair.same("os.utime(p('a-link'), ns=(5, 6), follow_symlinks=False)")
    pair.same("shown('a-link')")
    pair.same("os.lstat(p('a-link')).st_mtime_ns")


def test_a_file_that_is_written_is_asked_for_its_capabilities_without_an_open(
    pair: Pair, directories: tuple[str, str]
) -> None:
    source = os.path.join(os.path.dirname(directories[1]), "source")
    pair.mount.value("fd = os.open(p('open/capable'), os.O_CREAT | os.O_WRONLY)")
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(f"{source}/open/capable", "security.capability", capability)
    os.rename(f"{source}/open/capable", f"{source}.capable")  # an open would fail
    assert pair.mount.value("os.getxattr(fd, 'security.capability')") == capability
    pair.mount.value("os.close(fd)")


def test_a_strangers_write_clears_set_id_bits(pair: Pair, stranger: Pair) -> None:
    pair.same("open(p('open/set-id'), 'w').write('program')")
    pair.same("os.chmod(p('open/set-id'), 0o6777)")
    stranger.same(SHOWN)
    stranger.same("fd = os.open(p('open/set-id'), os.O_WRONLY)")
    stranger.same("os.write(fd, b'x')")
    assert stranger.same("shown('open/set-id')")[0] == "0o100777"
    stranger.same("os.close(fd)")


FLAGS = """
import fcntl, select
def flags(name):
    fd = os.open(p(name), os.O_RDONLY)
    try:
        return struct.unpack('i', fcntl.ioctl(fd, 0x80086601, b'1234'))[0]
    finally:
        os.close(fd)
def set_flags(name, value):
    fd = os.open(p(name), os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, struct.pack('i', value))
    finally:
        os.close(fd)
"""


def test_an_immutable_file_is_left_alone(pair: Pair) -> None:
    pair.same(FLAGS)
    pair.same("open(p('fixed'), 'w').write('fixed')")
    pair.same("set_flags('fixed', flags('fixed') | 0x10)")
    assert pair.same("flags('fixed') & 0x10") == 0x10
    assert pair.same("os.open(p('fixed'), os.O_WRONLY)") == "EPERM"
    assert pair.same("os.unlink(p('fixed'))") == "EPERM"
    pair.same("set_flags('fixed', flags('fixed') & ~0x30)")
    pair.same("set_flags('fixed', flags('fixed') | 0x20)")
    assert pair.same("os.open(p('fixed'), os.O_WRONLY)") == "EPERM"
    pair.same("fd = os.open(p('fixed'), os.O_WRONLY | os.O_APPEND)")
    pair.same("os.write(fd, b' and longer')")
    pair.same("os.close(fd)")
    pair.same("set_flags('fixed', flags('fixed') & ~0x30)")
    assert pair.same("content('fixed')") == b"fixed and longer"


def test_a_change_of_flags_shows_in_the_change_time_at_once(pair: Pair) -> None:
    pair.same(FLAGS)
    pair.same("open(p('flagged'), 'w').close()")
    pair.same("os.utime(p('flagged'), (1, 1))")
    pair.same("before = os.stat(p('flagged')).st_ctime_ns")
    pair.same("select.select([], [], [], 0.05)")  # the clock of the filesystem moves on
    pair.same("set_flags('flagged', flags('flagged') | 0x80)")
    assert pair.same("os.stat(p('flagged')).st_ctime_ns > before") is True


LOCKS = """
import fcntl
def try_lock(name):
    with open(p(name), 'r+b') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def test_locks_hold_between_clients_of_the_mount(pair: Pair, directories: tuple[str, str]) -> None:
    other = Client(directories[0])
    try:
        pair.mount.value(LOCKS)
        other.value(LOCKS)
        pair.mount.value("held = open(p('file'), 'r+b'); fcntl.flock(held, fcntl.LOCK_EX)")
        assert other.outcome("try_lock('file')") == "EAGAIN"
        pair.mount.value("held.close()")
        other.value("try_lock('file')")
    finally:
        other.close()


@pytest.fixture(params=["pool", PASSTHROUGH])
def full_pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """A mount of a small filesystem, and another small one."""
    base = tmp_path_factory.mktemp("full")
    source, twin = str(base / "source"), str(base / "twin")
    os.mkdir(source)
    os.mkdir(twin)
    tmpfs = ("-t", "tmpfs", "-o", "size=1M,nr_inodes=20", "zcfuse-tests")
    with (
        kernel_mount(*tmpfs, source),
        kernel_mount(*tmpfs, twin),
        serving(base, source, "--rw", "--path", request.param) as daemon,
    ):
        mount, native = Client(daemon.mountpoint, daemon), Client(twin)
        yield Pair(mount, native)
        mount.close()
        native.close()


def test_a_full_filesystem_is_reported_by_the_call_that_finds_it_full(full_pair: Pair) -> None:
    full_pair.same("fd = os.open(p('file'), os.O_CREAT | os.O_RDWR)")
    full_pair.same("os.write(fd, bytes(1 << 19))")
    assert full_pair.same("os.posix_fallocate(fd, 0, 1 << 22)") == "ENOSPC"
    full_pair.same("os.pwrite(fd, bytes(1 << 19), 1 << 19)")
    assert full_pair.same("os.pwrite(fd, b'x', 1 << 20)") == "ENOSPC"
    full_pair.same("os.close(fd)")
    full_pair.same("os.unlink(p('file'))")
    assert full_pair.same("[os.mkdir(p(str(n))) for n in range(20)]") == "ENOSPC"


def test_a_file_beyond_the_clients_limit_is_too_large(pair: Pair) -> None:
    pair.same("import resource, signal")
    pair.same("signal.signal(signal.SIGXFSZ, signal.SIG_IGN) and None")
    pair.same("resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))")
    pair.same("fd = os.open(p('limited'), os.O_CREAT | os.O_RDWR)")
    assert pair.same("os.pwrite(fd, b'x' * 10000, 0)") == 8192
    assert pair.same("os.pwrite(fd, b'x', 8192)") == "EFBIG"
    assert pair.same("os.ftruncate(fd, 10000)") == "EFBIG"
    pair.same("os.close(fd)")


def test_an_ordinary_user_changes_what_is_his(
    mounted: Mounter, ordinary_user: OrdinaryUser
) -> None:
    home = ordinary_user.home
    for name in ("source", "mnt", "twin"):
        os.mkdir(f"{home}/{name}")
        os.chown(f"{home}/{name}", ordinary_user.uid, ordinary_user.gid)
    daemon = mounted("--rw", source=f"{home}/source", mountpoint=f"{home}/mnt", user=ordinary_user)
    client = Client(daemon.mountpoint, daemon)
    try:
        client.value("fd = os.open(p('file'), os.O_CREAT | os.O_WRONLY, 0o200)")
        client.value("os.write(fd, b'mine')")
        client.value("os.close(fd)")
        assert client.outcome("os.open(p('file'), os.O_RDONLY)") == "EACCES"
        client.value("os.chmod(p('file'), 0o644)")
        assert client.value("content('file')") == b"mine"
        client.value("os.rename(p('file'), p('renamed'))")
        assert client.outcome("os.chown(p('renamed'), 0, 0)") == "EPERM"
        assert client.value("os.stat(p('renamed')).st_uid") == ordinary_user.uid
    finally:
        client.close()
    assert os.listdir(f"{home}/source") == ["renamed"]
