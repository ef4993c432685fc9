"""docs/semantics.md, claim by claim: each test cites the heading that it checks.

These tests need a few calls of a client. Tests with a reference model or faults stand beside their
parts.
"""

import os
import re
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Daemon, Mounter, let_everyone_reach, let_pass, requires
from tests.support._user import CHECKOUT

PATHS = ("auto", "splice", "mmap", "pool", "upcall", "naive")
# Twice the cache timeout of these tests, plus a margin for a busy machine.
CACHE_TIMEOUT_S = 0.2
AFTER_TIMEOUT_S = 0.6
PAGE = os.sysconf("SC_PAGE_SIZE")

_CITED: set[str] = set()

# Runs one expression as a client; prints its value, or the name of the errno it failed with.
_CLIENT = """
import ctypes, errno, fcntl, mmap, os, socket, stat, sys
path = sys.argv[1]
try:
    print(repr(eval(sys.argv[2])))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def heading(title: str) -> Callable[[Any], Any]:
    """Cite a heading of the page."""
    _CITED.add(title)
    return lambda test: requires("mounting")(test)


def ask(daemon: Daemon, expression: str, name: str = "file") -> str:
    """The value of `expression`, in which `path` is the file in the mount."""
    return daemon.python(_CLIENT, daemon.path(name), expression).stdout.decode().strip()


def write(source: str, name: str, content: bytes) -> str:
    path = os.path.join(source, name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def test_every_heading_that_is_cited_exists() -> None:
    with open(os.path.join(CHECKOUT, "docs", "semantics.md")) as page:
        headings = re.findall(r"^## (.+)$", page.read(), re.MULTILINE)
    assert set(headings) >= _CITED


CHANGES = {
    "open for writing": "os.open(path, os.O_WRONLY)",
    "O_TRUNC": "os.open(path, os.O_RDWR | os.O_TRUNC)",
    "creat": "os.open(path + '2', os.O_CREAT | os.O_WRONLY)",
    "mkdir": "os.mkdir(path + '2')",
    "mknod": "os.mkfifo(path + '2')",
    "symlink": "os.symlink('x', path + '2')",
    "link": "os.link(path, path + '2')",
    "unlink": "os.unlink(path)",
    "rmdir": "os.rmdir(os.path.join(os.path.dirname(path), 'directory'))",
    "rename": "os.rename(path, path + '2')",
    "chmod": "os.chmod(path, 0o600)",
    "chown": "os.chown(path, os.getuid(), os.getgid())",
    "truncate": "os.truncate(path, 0)",
    "utimensat": "os.utime(path, (1, 1))",
    "setxattr": "os.setxattr(path, 'user.x', b'y')",
    "removexattr": "os.removexattr(path, 'user.x')",
}


@heading("Read-only")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_whatever_would_change_the_tree_is_erofs(mounted: Mounter, source: str, path: str) -> None:
    write(source, "file", b"content")
    os.mkdir(os.path.join(source, "directory"))
    daemon = mounted("--path", path)
    expressions = " or ".join(f"outcome(lambda: {change})" for change in CHANGES.values())
    code = f"""
import errno, os, sys
path = sys.argv[1]
def outcome(change):
    try:
        change()
        print('done')
    except OSError as error:
        print(errno.errorcode[error.errno])
{expressions}
"""
    outcomes = daemon.python(code, daemon.path("file")).stdout.decode().split()
    assert dict(zip(CHANGES, outcomes, strict=True)) == dict.fromkeys(CHANGES, "EROFS")


@heading("Operations")
def test_a_writable_mapping_is_refused_and_a_private_one_is_not(
    mounted: Mounter, source: str
) -> None:
    write(source, "file", b"x" * PAGE)
    daemon = mounted()
    shared = "mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_SHARED, mmap.PROT_WRITE)"
    private = "bytes(mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_PRIVATE, 3)[:2])"
    assert ask(daemon, shared) == "EACCES"
    assert ask(daemon, private) == "b'xx'"


@heading("Operations")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_an_ioctl_is_enotty(mounted: Mounter, source: str, path: str) -> None:
    write(source, "file", b"x")
    get_flags = "fcntl.ioctl(os.open(path, os.O_RDONLY), 0x80086601, bytes(8))"
    assert ask(mounted("--path", path), get_flags) == "ENOTTY"


@heading("Names")
def test_a_name_is_any_bytes(mounted: Mounter, source: str) -> None:
    names = [b"\xff\xfe", b"a\nb", b" ", b"-", b"\\040", bytes(range(1, 47)), b"x" * 255]
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(source), name), os.O_CREAT | os.O_WRONLY))
    daemon = mounted()
    listed = ask(daemon, "sorted(os.listdir(os.fsencode(path)))", ".")
    assert listed == repr(sorted(names))
    assert ask(daemon, "os.stat(path)", "y" * 256) == "ENAMETOOLONG"


@heading("Cache timeout")
@pytest.mark.parametrize("path", PATHS)
def test_a_change_is_seen_by_open_and_read_after_the_timeout(
    mounted: Mounter, source: str, path: str
) -> None:
    backing = write(source, "file", b"before")
    daemon = mounted("--path", path, "--cache-timeout", str(CACHE_TIMEOUT_S))
    assert ask(daemon, "open(path, 'rb').read()") == "b'before'"
    let_pass(0.1)  # a tick of the filesystem's clock
    write(source, "file", b"AFTER!")
    let_pass(AFTER_TIMEOUT_S)
    assert ask(daemon, "open(path, 'rb').read()") == "b'AFTER!'"
    os.unlink(backing)
    let_pass(AFTER_TIMEOUT_S)
    assert ask(daemon, "os.stat(path)") == "ENOENT"


@heading("Cache timeout")
@pytest.mark.parametrize("path", PATHS)
def test_a_change_of_an_open_file_is_seen_by_read_after_the_timeout(
    mounted: Mounter, source: str, path: str
) -> None:
    write(source, "file", b"before")
    daemon = mounted("--path", path, "--cache-timeout", str(CACHE_TIMEOUT_S))
    code = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
first = os.pread(fd, 10, 0)
time.sleep(0.1)
with open(sys.argv[2], "r+b") as backing:
    backing.write(b"AFTER!")
time.sleep(float(sys.argv[3]))
print(first, os.pread(fd, 10, 0))
"""
    arguments = (daemon.path("file"), os.path.join(source, "file"), str(AFTER_TIMEOUT_S))
    assert daemon.python(code, *arguments).stdout == b"b'before' b'AFTER!'\n"


@heading("A tree that does not change")
def test_what_was_looked_at_is_kept_though_the_promise_is_broken(
    mounted: Mounter, source: str
) -> None:
    backing = write(source, "file", b"before")
    write(source, "unread", b"right")
    daemon = mounted("--immutable")
    look = "sorted(os.listdir(os.path.dirname(path))), os.stat(path).st_size"
    before = ask(daemon, look)
    assert before == "(['file', 'unread'], 6)"
    assert ask(daemon, "open(path, 'rb').read()") == "b'before'"
    os.unlink(backing)
    write(source, "new", b"WRONG!")
    os.rename(os.path.join(source, "new"), os.path.join(source, "unread"))
    assert ask(daemon, look) == before
    assert ask(daemon, "open(path, 'rb').read()") == "b'before'"
    assert ask(daemon, "len(os.listdir(path)), os.path.exists(path + '/file')", ".") == "(2, True)"
    assert ask(daemon, "os.open(path, os.O_RDONLY) > 0", "unread") == "True"
    assert ask(daemon, "open(path, 'rb').read()", "unread") == "ESTALE"


@heading("Permissions and ACLs")
@requires("root", "acl", "ordinary user")
def test_an_acl_is_enforced_for_other_users(mounted: Mounter, source: str, tmp_path: Any) -> None:
    for name in ("denied", "granted", "masked"):
        os.chmod(write(source, name, b"x"), 0o640)
    daemon = mounted("--allow-other")
    daemon.run("setfacl", "-m", "u:65534:r", os.path.join(source, "granted"))
    daemon.run("setfacl", "-m", "u:65534:r,m::-", os.path.join(source, "masked"))
    let_everyone_reach(tmp_path)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat"]
    results = [
        daemon.run(*become, daemon.path(name), check=False).returncode
        for name in ("denied", "granted", "masked")
    ]
    assert results == [1, 0, 1]


@heading("Symlinks")
def test_a_symlink_is_shown_byte_for_byte(mounted: Mounter, source: str) -> None:
    os.symlink(b"/nowhere/\xff", os.path.join(os.fsencode(source), b"link"))
    assert ask(mounted(), "os.readlink(os.fsencode(path))", "link") == r"b'/nowhere/\xff'"


@heading("Special files")
def test_a_fifo_is_listed_as_one_and_belongs_to_the_client(mounted: Mounter, source: str) -> None:
    os.mkfifo(os.path.join(source, "fifo"))
    daemon = mounted()
    assert ask(daemon, "stat.S_ISFIFO(os.stat(path).st_mode)", "fifo") == "True"
    # No writer exists; the daemon must not block on a FIFO of the backing tree.
    assert ask(daemon, "os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 1)", "fifo") == "b''"


@heading("Hard links and replaced files")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_hard_links_are_one_file(mounted: Mounter, source: str, path: str) -> None:
    backing = write(source, "file", b"x")
    os.link(backing, backing + "2")
    daemon = mounted("--path", path)
    same = "os.path.samefile(path, path + '2') and os.stat(path).st_nlink"
    assert ask(daemon, same) == "2"


@heading("Hard links and replaced files")
@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_was_removed_stays_readable_where_it_is_open(
    mounted: Mounter, source: str, path: str
) -> None:
    write(source, "file", b"x" * 3 * PAGE)
    daemon = mounted("--path", path, "--cache-timeout", "0")
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.unlink(sys.argv[2])
print(len(os.pread(fd, 1 << 20, 0)), os.fstat(fd).st_size, os.fstat(fd).st_nlink)
"""
    result = daemon.python(code, daemon.path("file"), os.path.join(source, "file"))
    assert result.stdout.split() == [str(3 * PAGE).encode(), str(3 * PAGE).encode(), b"0"]


@heading("Inode numbers")
@pytest.mark.parametrize("path", ["auto", "upcall"])
def test_st_ino_is_the_backing_files(mounted: Mounter, source: str, path: str) -> None:
    backing = write(source, "file", b"x")
    daemon = mounted("--path", path)
    wanted = str(os.stat(backing).st_ino)
    assert ask(daemon, "os.stat(path).st_ino") == wanted
    assert ask(daemon, "os.fstat(os.open(path, os.O_RDONLY)).st_ino") == wanted
    assert ask(daemon, "[entry.inode() for entry in os.scandir(path)]", ".") == f"[{wanted}]"


@heading("Holes")
@pytest.mark.parametrize("path", PATHS)
def test_a_hole_reads_as_zeros_and_blocks_show_it(mounted: Mounter, source: str, path: str) -> None:
    backing = write(source, "file", b"")
    with open(backing, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"end")
        file.flush()
        os.fsync(file.fileno())  # the filesystem counts blocks when it allocates them
    daemon = mounted("--path", path)
    read = "(lambda data: (data.count(0), data[-3:]))(open(path, 'rb').read())"
    assert ask(daemon, read) == f"({1 << 20}, b'end')"
    assert ask(daemon, "os.stat(path).st_blocks") == str(os.stat(backing).st_blocks)


@heading("Holes")
@pytest.mark.parametrize("path", ["auto", "splice", "mmap", "pool"])
def test_seek_data_finds_what_it_finds_natively(mounted: Mounter, source: str, path: str) -> None:
    backing = write(source, "file", b"")
    with open(backing, "r+b") as file:
        file.seek(1 << 20)
        file.write(b"end")
    file_descriptor = os.open(backing, os.O_RDONLY)
    native = os.lseek(file_descriptor, 0, os.SEEK_DATA)
    os.close(file_descriptor)
    seek = "os.lseek(os.open(path, os.O_RDONLY), 0, os.SEEK_DATA)"
    assert ask(mounted("--path", path), seek) == str(native)


@heading("Truncation and growth")
@pytest.mark.parametrize("path", PATHS)
def test_a_truncated_file_gives_a_short_read(mounted: Mounter, source: str, path: str) -> None:
    write(source, "file", os.urandom(64 * PAGE))
    daemon = mounted("--path", path, "--cache-timeout", "0")
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.pread(fd, 100, 0)
os.truncate(sys.argv[2], 5000)
print(len(os.pread(fd, 1 << 20, 0)), len(os.pread(fd, 4096, 100000)))
"""
    result = daemon.python(code, daemon.path("file"), os.path.join(source, "file"))
    assert result.stdout.split() == [b"5000", b"0"]


@heading("O_DIRECT")
@pytest.mark.parametrize("path", PATHS)
def test_an_open_with_o_direct_reads_the_same(mounted: Mounter, source: str, path: str) -> None:
    content = os.urandom(4 * PAGE)
    backing = write(source, "file", content)
    try:
        os.close(os.open(backing, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        if path == "auto":
            path = "splice"  # the backing filesystem lacks it, and passthrough behaves the same
    daemon = mounted("--path", path)
    code = """
import mmap, os, sys, zlib
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
buffer = mmap.mmap(-1, int(sys.argv[2]))
print(os.preadv(fd, [buffer], 0), zlib.crc32(buffer))
"""
    result = daemon.python(code, daemon.path("file"), str(len(content)))
    assert result.stdout.split() == [str(n).encode() for n in (len(content), zlib.crc32(content))]


@heading("Advice")
@pytest.mark.parametrize("path", PATHS)
def test_advice_is_taken_and_reads_go_on(mounted: Mounter, source: str, path: str) -> None:
    content = os.urandom(1 << 20)
    write(source, "file", content)
    daemon = mounted("--path", path)
    code = """
import ctypes, os, sys, zlib
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
assert ctypes.CDLL(None).readahead(fd, ctypes.c_long(0), ctypes.c_size_t(1 << 20)) == 0
print(zlib.crc32(os.pread(fd, 1 << 20, 0)))
"""
    assert int(daemon.python(code, daemon.path("file")).stdout) == zlib.crc32(content)


@heading("Extended attributes")
@requires("xattr")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_extended_attributes_are_the_backing_files(
    mounted: Mounter, source: str, path: str
) -> None:
    backing = write(source, "file", b"x")
    os.setxattr(backing, "user.zcfuse", b"value\0\xff")
    daemon = mounted("--path", path)
    assert ask(daemon, "os.getxattr(path, 'user.zcfuse')") == r"b'value\x00\xff'"
    assert "user.zcfuse" in ask(daemon, "os.listxattr(path)")
    assert ask(daemon, "os.getxattr(path, 'user.other')") == "ENODATA"


@heading("Locks")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_locks_are_kept_per_mount(mounted: Mounter, source: str, path: str) -> None:
    write(source, "file", b"x")
    daemon = mounted("--path", path)
    code = """
import fcntl, os, sys
def locked(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
first = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(first, fcntl.LOCK_EX)
print(locked(sys.argv[1]), locked(sys.argv[2]))
"""
    result = daemon.python(code, daemon.path("file"), os.path.join(source, "file"))
    assert result.stdout.split() == [b"False", b"True"]


@heading("Directories that change")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_a_name_that_stays_is_returned_once(mounted: Mounter, source: str, path: str) -> None:
    for number in range(3000):
        write(source, f"stays-{number:04d}", b"")
    daemon = mounted("--path", path)
    code = """
import os, sys
seen = []
with os.scandir(sys.argv[1]) as entries:
    for number, entry in enumerate(entries):
        seen.append(entry.name)
        if number % 10 == 0:
            os.close(os.open(f"{sys.argv[2]}/new-{number}", os.O_CREAT | os.O_WRONLY))
stays = [name for name in seen if name.startswith("stays-")]
print(len(stays), len(set(stays)), len(seen) - len(set(seen)))
"""
    result = daemon.python(code, daemon.mountpoint, source)
    assert result.stdout.split() == [b"3000", b"3000", b"0"]


@heading("When the daemon ends")
@pytest.mark.parametrize("path", ["auto", "naive"])
def test_a_daemon_that_was_killed_leaves_enotconn_until_it_is_unmounted(
    mounted: Mounter, source: str, path: str
) -> None:
    write(source, "file", b"x")
    daemon = mounted("--path", path)
    daemon.kill()
    # Over io_uring the kernel may still be ending the connection when the process is gone.
    assert ask(daemon, "os.stat(path)") in ("ENOTCONN", "ECONNABORTED")
    assert ask(daemon, "os.stat(path)") == "ENOTCONN"
    daemon.run(*(["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]), daemon.mountpoint)
    assert daemon.mount is None
