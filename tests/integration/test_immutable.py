"""An immutable backing tree: questions asked only once, and broken promises.

The kernel counts requests at fuse:fuse_request_send, before the daemon sees them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.cli.conftest import run_zcfuse
from tests.integration.conftest import kernel_mount, write
from tests.integration.counts import counts, eventually
from tests.support import Daemon, OrdinaryUser, requires
from tests.support._rings import rings_on
from zcfuse.audit._tracepoints import RequestCounter

pytestmark = requires("mounting")

TRANSPORTS: Final = [
    "dev",
    pytest.param("uring", marks=[requires("io_uring", "root"), pytest.mark.ring]),
]
FILES: Final = 60
SMALL: Final = 16 << 10
BIG: Final = os.urandom((5 << 20) + 321)
# One look at everything: names, attributes, links, lists, bytes, and a missing name.
EPOCH: Final = f"""
def one(name):
    fd = os.open(p(name), os.O_RDONLY)
    try:
        return digest(b"".join(iter(lambda: os.read(fd, {SMALL}), b"")))
    finally:
        os.close(fd)

def epoch():
    found = [sorted(os.listdir(p(d))) for d in ("", "dir", "dir/empty")]
    found += [one(f"dir/file-{{n}}") for n in range({FILES})]
    found += [os.lstat(p(f"dir/file-{{n}}")).st_size for n in range({FILES})]
    found += [os.readlink(p("link")), one("link"), one("hard"), os.stat(p("dir")).st_mode]
    found += [os.path.lexists(p(f"missing-{{n}}")) for n in range(5)]
    return found
"""


@pytest.fixture
def switched_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel's switch, for tests with a ring."""
    if request.getfixturevalue("transport") != "uring":
        yield
        return
    with rings_on():
        yield


@pytest.fixture
def immutable(mounted, source):
    """Immutable mounts of trees in which small files dominate, so that opens send no message."""

    def mount(*options, **how):
        os.makedirs(f"{source}/small files", exist_ok=True)
        for n in range(64):
            write(f"{source}/small files", f"{n}")
        return mounted("--immutable", *options, **how)

    return mount


def fill(source: str) -> None:
    os.makedirs(f"{source}/dir/empty")
    for n in range(FILES):
        write(f"{source}/dir", f"file-{n}", f"{n}".encode() * (SMALL // 2))
    write(source, "big", BIG)
    write(source, "nothing")
    os.link(f"{source}/dir/file-1", f"{source}/hard")
    os.symlink("dir/file-2", f"{source}/link")
    with open(f"{source}/sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data" * 4096)


class Sent:
    """Requests that the kernel sent to a mount within a block."""

    def __init__(self, daemon: Daemon) -> None:
        mount = daemon.mount
        assert mount is not None
        self._counter = RequestCounter(mount.connection)
        self.found: dict[str, int] = {}

    def __enter__(self) -> Sent:
        self._before = self._counter.count()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._counter.count()
        self._counter.close()
        self.found = {
            name or "all": n - self._before[name]
            for name, n in after.items()
            if n - self._before[name]
        }


@requires("tracepoints")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("switched_on")
def test_a_second_epoch_sends_no_request(immutable, pairs, source, transport) -> None:
    fill(source)
    daemon = immutable("--transport", transport)
    pair = pairs(daemon)
    pair.mount.value(EPOCH)
    pair.native.value(EPOCH)
    first = pair.same("epoch()")
    with Sent(daemon) as sent:
        assert pair.mount.value("epoch()") == first
    assert sent.found == {}
    assert counts(daemon).datapath["transport"]["kind"] == transport
    assert counts(daemon).datapath["upcalls"] == {"INIT": 1}


@requires("tracepoints")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("known", ["os.listdir(p('dir'))", "os.stat(p('dir/file-7')).st_size"])
def test_the_first_read_of_a_known_file_is_one_request(
    immutable, clients, source, transport, known
) -> None:
    fill(source)
    daemon = immutable("--transport", transport)
    client = clients(daemon)
    client.value(EPOCH)
    client.value("one('dir/file-0')")  # makes the kernel skip opens
    client.value(known)
    with Sent(daemon) as sent:
        client.value("one('dir/file-7')")
    assert sent.found == {"all": 1, "READ": 1}


@requires("tracepoints")
def test_a_big_file_is_read_once(immutable, clients, source) -> None:
    fill(source)
    daemon = immutable()
    client = clients(daemon)
    client.value(EPOCH)
    whole = client.value("one('big')")
    with Sent(daemon) as sent:
        assert client.value("one('big')") == whole
        client.value("mmap.mmap(os.open(p('big'), os.O_RDONLY), 0, prot=mmap.PROT_READ)[:]")
    assert sent.found == {}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("path", ["auto", "pool", "mmap", "splice", "upcall"])
def test_bytes_attributes_and_errnos_are_those_of_the_backing_tree(
    immutable, pairs, source, path, transport
) -> None:
    fill(source)
    daemon = immutable("--path", path, "--transport", transport)
    pair = pairs(daemon)
    runs = f"[(0, {len(BIG)}), (4096, 4096), ({len(BIG) - 100}, 4096), (1 << 20, 300000)]"
    for how in ("by_read", "by_mmap", "by_sendfile", "by_splice"):
        pair.same(f"[{how}(name, {runs}) for name in ('big', 'sparse', 'hard', 'link')]")
    pair.same(f"by_direct('big', [(0, {1 << 20}), (4096, 4096), (40960, 102400)])")
    pair.same("FIELDS.remove('atime_ns')")
    pair.same("tree()")
    pair.same("[entries(name) for name in ('', 'dir', 'dir/empty')]")
    pair.same("[content(name) for name in ('nothing', 'hard', 'link')]")
    if path != "upcall":
        pair.same("[extents(name) for name in ('big', 'sparse', 'nothing')]")
    for wrong in (
        "content('none')",
        "os.listdir(p('big'))",
        "content('dir')",
        "os.stat(p('big/x'))",
    ):
        pair.same(wrong)
    pair.same("os.open(p('big'), os.O_RDONLY | os.O_DIRECTORY)")
    assert eventually(lambda: counts(daemon).control["open_directories"] == 0)
    assert counts(daemon).opens.get("passthrough", 0) == 0
    pair.same("os.fsync(os.open(p('big'), os.O_RDONLY))")
    pair.same("os.fsync(os.open(p('dir'), os.O_RDONLY))")
    pair.same("os.statvfs(p('big')).f_bsize")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("switched_on")
def test_several_processes_read_the_same(immutable, source, transport) -> None:
    fill(source)
    daemon = immutable("--transport", transport)
    code = """
import concurrent.futures, hashlib, os, sys
root, native = sys.argv[1:]
def digest(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.blake2b(file.read()).digest()
def same(name):
    return digest(os.path.join(root, name)) == digest(os.path.join(native, name))
names = [f"dir/{name}" for name in os.listdir(f"{root}/dir") if name != "empty"]
names += ["big", "sparse", "hard", "link"]
with concurrent.futures.ProcessPoolExecutor(6) as pool:
    print(sum(pool.map(same, names * 10, chunksize=7)), 10 * len(names))
"""
    ran = daemon.python(code, daemon.mountpoint, source, timeout=60).stdout.split()
    assert ran[0] == ran[1] == b"%d" % (10 * (FILES + 4))


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_has_it_too(mounted, ordinary_user: OrdinaryUser) -> None:
    source, mountpoint = (ordinary_user.directory(name) for name in ("source", "mnt"))
    assert ordinary_user.run("sh", "-c", 'echo bytes > "$0"', f"{source}/file").returncode == 0
    daemon = mounted("--immutable", source=source, mountpoint=mountpoint, user=ordinary_user)
    for _ in range(3):
        assert daemon.run("cat", daemon.path("file")).stdout == b"bytes\n"
        assert daemon.run("ls", daemon.mountpoint).stdout == b"file\n"
    after = counts(daemon)
    assert [after.request(name) for name in ("OPEN", "READ", "OPENDIR")] == [1, 1, 1]


# Broken promises


def broken(source: str, by: str) -> None:
    """Break the promise about `file` and `big`."""
    for name in ("file", "big"):
        if by == "replaced":
            os.rename(write(source, "new", b"WRONG" * 100_000), f"{source}/{name}")
        elif by == "removed":
            os.unlink(f"{source}/{name}")
        elif by == "a directory now":
            os.unlink(f"{source}/{name}")
            os.mkdir(f"{source}/{name}")
        elif by == "a fifo now":
            os.unlink(f"{source}/{name}")
            os.mkfifo(f"{source}/{name}")


@pytest.mark.parametrize("by", ["replaced", "removed", "a directory now", "a fifo now"])
def test_a_file_that_is_another_one_is_estale_and_never_its_bytes(
    immutable, clients, source, by
) -> None:
    write(source, "file", b"right" * 1000)
    write(source, "big", BIG)
    client = clients(immutable())
    known = client.value("[os.stat(p(name)).st_size for name in ('file', 'big')]")
    broken(source, by)
    for name in ("file", "big"):
        assert client.outcome(f"content({name!r})") == "ESTALE"
        mapped = f"by_read({name!r}, [(0, 100)])"
        assert client.outcome(mapped) == "ESTALE"
    assert client.value("[os.stat(p(name)).st_size for name in ('file', 'big')]") == known


@pytest.mark.alone  # tests of the bench drop the caches that it needs
@pytest.mark.parametrize("by", ["replaced", "removed"])
def test_what_was_read_before_stays_as_it_was(immutable, clients, source, by) -> None:
    write(source, "file", b"right" * 1000)
    write(source, "big", BIG)
    daemon = immutable()
    client = clients(daemon)
    before = client.value("digest(content('file'))")
    client.value("by_read('big', [(0, 100)])")
    broken(source, by)
    assert client.value("digest(content('file'))") == before
    # Open for a moment after its last READ, then closed.
    rest = "os.pread(os.open(p('big'), os.O_RDONLY), 4096, 4 << 20)"
    assert client.outcome(rest) in (BIG[4 << 20 : (4 << 20) + 4096], "ESTALE")
    assert eventually(lambda: counts(daemon).datapath["directories"]["kept_files"] == 0)
    assert client.outcome("os.pread(opened('big'), 4096, 3 << 20)") == "ESTALE"


def test_a_file_that_shrank_gives_no_bytes_that_were_never_there(
    immutable, clients, source
) -> None:
    write(source, "big", BIG)
    client = clients(immutable())
    assert client.value("os.stat(p('big')).st_size") == len(BIG)
    os.truncate(f"{source}/big", 10_000)
    found = client.value("content('big')")
    assert found[:10_000] == BIG[:10_000]
    assert not found[10_000:].strip(b"\0")
    assert (
        client.value("os.pread(os.open(p('big'), os.O_RDONLY), 100, 4 << 20)").strip(b"\0") == b""
    )


def test_a_file_that_grew_is_read_to_its_old_end(immutable, clients, source) -> None:
    write(source, "file", b"right")
    client = clients(immutable())
    assert client.value("os.stat(p('file')).st_size") == 5
    write(source, "file", b"right and more")
    assert client.value("content('file')") == b"right"


def test_names_that_come_and_go_are_not_noticed(mounted, clients, source) -> None:
    write(source, "file", b"right")
    client = clients(mounted("--immutable"))
    assert client.value("os.listdir(p())") == [b"file"]
    assert not client.value("os.path.lexists(p('new'))")
    write(source, "new", b"new")
    os.rename(f"{source}/file", f"{source}/old")
    assert client.value("(os.listdir(p()), os.path.lexists(p('new')))") == ([b"file"], False)
    assert client.value("os.path.lexists(p('file'))")
    assert client.outcome("content('file')") == "ESTALE"
    assert client.value("content('old')") == b"right"  # by its current name


@pytest.mark.alone  # tests of the bench drop the caches that it needs
def test_a_directory_that_was_moved_is_estale_after_a_while(immutable, clients, source) -> None:
    fill(source)
    client = clients(immutable())
    client.value(EPOCH)
    client.value("os.listdir(p('dir'))")
    whole = client.value("one('dir/file-1')")
    os.rename(f"{source}/dir", f"{source}/away")
    read = "os.pread(opened('dir/file-2'), 100, 0)"
    assert eventually(lambda: client.outcome(read) == "ESTALE")
    assert client.value("one('dir/file-1')") == whole
    # A new name makes the kernel look again at the way to it.
    assert client.outcome("os.stat(p('dir/other'))") == "ENOENT"
    assert client.outcome("one('dir/file-1')") == "ENOENT"
    assert client.value("one('away/file-1')") == whole


# Requests that the data path does not answer


@requires("root")
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.usefixtures("switched_on")
def test_another_filesystem_in_the_source_is_served_without_opens_too(
    immutable, pairs, source, transport
) -> None:
    os.makedirs(f"{source}/one/inner")
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/one/inner"):
        for n in range(100):
            write(f"{source}/one/inner", f"file-{n}", f"{n}".encode() * 5000)
        write(f"{source}/one/inner", "big", BIG)
        os.mkdir(f"{source}/one/inner/deeper")
        with open(f"{source}/one/inner/holes", "wb") as file:
            os.pwrite(file.fileno(), b"data" * 1024, 1 << 20)
        daemon = immutable("--transport", transport)
        pair = pairs(daemon)
        for _ in range(2):
            pair.same("[digest(content(f'one/inner/file-{n}')) for n in range(100)]")
            pair.same("by_read('one/inner/big', [(0, 1 << 20), (3 << 20, 4096)])")
            pair.same("by_mmap('one/inner/big', [(0, 1 << 20), (3 << 20, 4096)])")
            pair.same("sorted(os.listdir(p('one/inner')))")
        pair.same("content('one/inner/deeper')")
        pair.same("[extents(f'one/inner/{name}') for name in ('big', 'file-3', 'holes')]")
        pair.same("os.listdir(p('one/inner/deeper'))")
        upcalls = counts(daemon).control["upcalls"]
        assert (upcalls.get("open", 0), upcalls.get("opendir", 0)) == (0, 0)
        assert upcalls["read"] >= 100


@requires("root", "tracepoints")
def test_what_control_answered_is_kept_as_well(immutable, clients, source) -> None:
    os.mkdir(f"{source}/inner")
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/inner"):
        write(f"{source}/inner", "file", b"x" * SMALL)
        daemon = immutable()
        client = clients(daemon)
        look = "(os.listdir(p('inner')), os.stat(p('inner/file')).st_size, len(one('inner/file')))"
        client.value(EPOCH)
        first = client.value(look)
        with Sent(daemon) as sent:
            assert client.value(look) == first
        assert sent.found == {}


@pytest.mark.alone  # tests of the bench drop the caches that it needs
@pytest.mark.timeout(120)
def test_five_thousand_files_are_read_with_few_descriptors(mounted, source) -> None:
    for directory in range(10):
        os.mkdir(f"{source}/{directory}")
        for n in range(500):
            with open(f"{source}/{directory}/file-{n}", "wb") as file:
                file.write(b"%d-%d" % (directory, n))
    daemon = mounted("--immutable")
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (256, 256))
    code = """
import os, sys
found = 0
for where, _, names in os.walk(sys.argv[1]):
    for name in names:
        fd = os.open(os.path.join(where, name), os.O_RDONLY)
        parts = os.path.basename(where), name.removeprefix("file-")
        assert os.read(fd, 100).decode() == "-".join(parts)
        os.close(fd)
        found += 1
print(found)
"""
    for _ in range(2):
        assert daemon.python(code, daemon.mountpoint, timeout=60).stdout == b"5000\n"
    found = counts(daemon)
    assert 5_000 <= found.request("READ") < 6_000
    assert found.request("OPEN") == found.request("OPENDIR") == 1
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < 256


# A policy, and a revoke; the program mounts in a separate process

PROGRAM: Final = """
import json, os, subprocess, sys
import trio
from zcfuse import Mirror, MountOptions, mount

source, mountpoint, kind = sys.argv[1:]
CHILD = '''
import errno, os, sys
os.chdir(sys.argv[1])
def content(name):
    try:
        fd = os.open(name, os.O_RDONLY)
        try:
            return os.read(fd, 20).decode()
        finally:
            os.close(fd)
    except OSError as error:
        return errno.errorcode[error.errno]
held = os.open("big", os.O_RDONLY)
first = os.pread(held, 5, 0).decode()
names = os.scandir("many")
next(names)
print(first, content("file"), sorted(os.listdir("."))[:2], flush=True)
sys.stdin.readline()
print(os.pread(held, 5, 1 << 20).decode(), 1 + len(list(names)), flush=True)
print(content("file"), sorted(os.listdir("."))[:2], content("dir/inner"), flush=True)
print(len(os.listdir("many")), os.path.exists("missing"), flush=True)
'''

class Policy(Mirror):
    def lookup(self, directory, name):
        return super().lookup(directory, b"dir" if name == b"alias" else name)

async def main():
    tree = Policy(source) if kind == "policy" else Mirror(source)
    options = MountOptions(unmount_wait=1, immutable=True)
    async with mount(tree, mountpoint, options) as served:
        child = await trio.lowlevel.open_process(
            [sys.executable, "-c", CHILD, mountpoint],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        before = ""
        while not before.endswith("\\n"):
            before += (await child.stdout.receive_some(1000)).decode()
        asked = dict(served.statistics()["control"]["upcalls"])
        served.revoke_lease()
        await child.stdin.send_all(b"go\\n")
        with trio.fail_after(20):
            after = b"".join([part async for part in child.stdout]).decode()
            code = await child.wait()
        found = served.statistics()
        upcalls, fallbacks = found["control"]["upcalls"], found["datapath"]["fallbacks"]
        answers = before.splitlines(), after.splitlines()
        print(json.dumps([answers[0], asked, answers[1], code, upcalls, fallbacks]))

trio.run(main)
"""


@pytest.fixture
def program(tmp_path) -> Callable[..., list]:
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    (source / "dir").mkdir(parents=True)
    (source / "many").mkdir()
    mountpoint.mkdir()
    (source / "file").write_bytes(b"first")
    (source / "big").write_bytes(b"begin".ljust(1 << 20, b".") + b"after")
    (source / "dir" / "inner").write_bytes(b"12")
    for n in range(3000):
        (source / "many" / f"{n}").touch()

    def run(kind: str) -> list:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, source, mountpoint, kind],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found: list = json.loads(result.stdout)
        return found

    return run


def test_after_a_revoke_names_come_from_python_and_reads_go_on(program) -> None:
    before, asked, after, code, upcalls, _ = program("mirror")
    assert (before, asked, code) == (["begin first ['big', 'dir']"], {}, 0)
    assert after == ["after 3000", "first ['big', 'dir'] 12", "3000 False"]
    assert upcalls["lookup"] >= 1
    assert upcalls["read"] >= 1
    # Which of the two the kernel sends depends on the listings before.
    assert upcalls.get("readdir", 0) + upcalls.get("readdirplus", 0) >= 1
    assert upcalls.get("open", 0) == 0


def test_a_tree_with_a_policy_is_asked_for_every_open(program) -> None:
    before, asked, after, code, upcalls, fallbacks = program("policy")
    assert (before, code) == (["begin first ['big', 'dir']"], 0)
    assert asked["open"] == 2
    assert asked["opendir"] >= 2
    assert after == ["after 3000", "first ['big', 'dir'] 12", "3000 False"]
    assert fallbacks["opens_not_leased"] == upcalls["open"] + upcalls["opendir"]


@requires("root", "passthrough", "tracepoints")
def test_large_files_pass_through_and_their_names_are_asked_for_once(
    mounted, clients, source
) -> None:
    os.mkdir(f"{source}/dir")
    for n in range(4):
        write(f"{source}/dir", f"large-{n}", f"{n}".encode() * (1 << 20))
    write(source, "small", b"small")
    daemon = mounted("--immutable")
    client = clients(daemon)
    look = "[os.stat(p(f'dir/large-{n}')).st_size for n in range(4)]"
    read = "[digest(open(p(f'dir/large-{n}'), 'rb', 0).read()) for n in range(4)]"
    first = client.value(look), client.value(read)
    assert counts(daemon).opens == {"passthrough": 4}
    with Sent(daemon) as sent:
        assert (client.value(look), client.value(read)) == first
    assert sent.found.keys() <= {"all", "OPEN", "RELEASE", "IOCTL", "LSEEK", "GETATTR"}
    assert "LOOKUP" not in sent.found
    assert counts(daemon).reads == 0


@requires("root", "passthrough")
def test_the_start_says_that_opens_of_large_files_send_messages(source, mountpoint) -> None:
    write(source, "large", b"l" * (1 << 20))
    told = run_zcfuse("mount", "--immutable", source, mountpoint)
    assert told.returncode == 0
    assert "the files are large" in told.stderr
    assert run_zcfuse("umount", mountpoint).returncode == 0
