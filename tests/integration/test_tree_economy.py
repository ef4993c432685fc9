"""Many contents and few descriptors, mirrors with separate leases, dangling paths."""

from __future__ import annotations

import os

import pytest

from tests.integration.client import Client
from tests.integration.conftest import kernel_mount
from tests.integration.counts import eventually
from tests.support import requires

pytestmark = [requires("mounting"), pytest.mark.timeout(300)]

STRANGER = 54321

MANY = """
tree = Dir({f"{n // 1000:02}": Dir({f"{n}": Bytes(b"%d" % n * (n % 7)) for n in range(n, n + 1000)})
            for n in range(0, 100_000, 1000)})
large = Dir({f"{n}": Bytes(b"%3d" % n * 400_000) for n in range(100)})
tree.add("large", large)
"""


def test_a_hundred_thousand_contents_work_with_256_descriptors(shows) -> None:
    program, client = shows(MANY, limit=256)
    assert client.value("sum(len(os.listdir(p(name))) for name in os.listdir(p()))") == 100_100
    found = client.value("[content(f'{n // 1000:02}/{n}') for n in range(0, 100_000, 29)]", 120)
    assert found == [b"%d" % n * (n % 7) for n in range(0, 100_000, 29)]
    # More large ones than the process has descriptors for, all open at once.
    client.value("globals().update(fds=[opened(f'large/{n}') for n in range(100)])")
    ends = client.value("[os.pread(fd, 3, 1_199_997) for fd in fds]")
    assert ends == [b"%3d" % n for n in range(100)]
    assert program.run("return len(os.listdir('/proc/self/fd'))") <= 256


@requires("root")
def test_contents_in_memory_need_no_descriptors_of_their_reader(public: str, shows) -> None:
    source = """
tree = Dir({f"{n}": Bytes(b"%3d" % n * 400_000) for n in range(25)})
options = MountOptions(allow_other=True)
"""
    program, _ = shows(source, at=f"{public}/mnt", limit=128)
    # The tree keeps its contents open; a user's share is smaller than their number.
    stranger = Client(program.mountpoint, program, uid=STRANGER)
    try:
        stranger.value("globals().update(fds=[opened(f'{n}') for n in range(25)])")
        ends = stranger.value("[os.pread(fd, 3, 1_199_997) for fd in fds]")
    finally:
        stranger.close()
    assert ends == [b"%3d" % n for n in range(25)]


@requires("passthrough")
def test_large_contents_pass_through_and_small_ones_do_not(shows) -> None:
    program, client = shows("tree = Dir({'large': Bytes(bytes(1 << 20)), 'small': Bytes(b'x')})")
    assert client.value("content('large')") == bytes(1 << 20)
    assert client.value("content('small')") == b"x"
    assert program.statistics()["datapath"]["opens"] == {"cached": 1, "passthrough": 1}


MIRRORS = """
tree = Dir({"one": Mirror(where + "/one"), "sub": Dir({"two": Mirror(where + "/two")}),
            "file": Bytes(b"x")})
options = MountOptions(cache_timeout=1)
"""


@pytest.fixture
def where(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "dir").mkdir(parents=True)
        (tmp_path / name / "dir" / "file").write_bytes(b"in " + name.encode())
    (tmp_path / "secret").write_bytes(b"secret")
    os.symlink("../../secret", tmp_path / "one" / "dir" / "out")
    return str(tmp_path)


def test_a_mirror_below_a_directory_has_a_lease_of_its_own(shows, where) -> None:
    program, client = shows(MIRRORS, where=where)
    assert client.value("content('one/dir/file')") == b"in one"
    assert client.value("content('sub/two/dir/file')") == b"in two"
    control = program.statistics()["control"]["upcalls"]
    assert client.value("os.listdir(p('one/dir'))") != []
    assert client.outcome("os.stat(p('sub/two/missing'))") == "ENOENT"
    assert client.value("os.stat(p('one/dir/file')).st_size") == 6
    after = program.statistics()
    assert after["control"]["upcalls"] == control
    assert after["datapath"]["directories"]["leased"] == 3
    assert control.get("open", 0) == 0


def test_a_mirror_below_a_directory_lets_nobody_out(shows, where) -> None:
    program, client = shows(MIRRORS, where=where)
    # The client's kernel follows the link, from the mount; the daemon never does.
    assert client.outcome("content('one/dir/out')") == "ENOENT"
    assert client.value("os.readlink(p('one/dir/out'))") == b"../../secret"
    client.value("globals().update(fd=os.open(p('one/dir'), os.O_RDONLY))")
    os.rename(os.path.join(where, "one", "dir"), os.path.join(where, "moved"))
    os.symlink("..", os.path.join(where, "one", "dir"))
    gone = "os.path.lexists(p('one/dir/secret'))"
    assert not client.value(gone)
    assert eventually(lambda: client.outcome("os.open('file', 0, dir_fd=fd)") == "ESTALE")
    assert program.statistics()["control"]["errors"].get("EIO") is None


def test_a_lease_ends_when_the_mirror_is_taken_away(shows, where) -> None:
    program, client = shows(MIRRORS, where=where)
    leased = "return served.statistics()['datapath']['directories']['leased']"
    assert client.value("content('one/dir/file')") == b"in one"
    assert program.run(leased) == 2
    program.run("mirror = tree.remove('one'); await served.notified(); mirror.close()")
    assert client.outcome("content('one/dir/file')") == "ENOENT"
    assert eventually(lambda: program.run(leased) == 1)
    program.run("tree.add('one', Mirror(where + '/two')); await served.notified()")
    assert client.value("content('one/dir/file')") == b"in two"


def test_a_revoke_reaches_the_mirrors_below_as_well(shows, where) -> None:
    program, client = shows(MIRRORS, where=where)
    assert client.value("content('one/dir/file')") == b"in one"
    program.run("served.revoke_lease()")
    assert client.value("content('one/dir/file')") == b"in one"
    assert client.value("content('sub/two/dir/file')") == b"in two"
    assert program.statistics()["control"]["upcalls"]["open"] == 2


@requires("root", "private mounts")
def test_a_mirror_on_another_mount_and_a_mount_inside_it_are_shown(shows, where) -> None:
    inside = os.path.join(where, "one", "dir", "mounted")
    os.mkdir(inside)
    with kernel_mount("-t", "tmpfs", "none", inside):
        with open(os.path.join(inside, "file"), "w") as file:
            file.write("on a tmpfs")
        program, client = shows(MIRRORS, where=where)
        assert client.value("content('one/dir/mounted/file')") == b"on a tmpfs"
        assert client.value("os.listdir(p('one/dir/mounted'))") == [b"file"]
        assert program.statistics()["control"]["upcalls"]["open"] == 1


def test_what_leads_back_into_the_mount_is_refused_and_never_waited_for(shows, where) -> None:
    tree = """
tree = Dir({"here": Bytes(b"x"), "loop": File(mnt + "/here"), "dots": File(mnt + "/../mnt/here"),
            "link": File(where + "/link"), "mirror": Mirror(os.path.dirname(mnt)),
            "piece": Concat([mnt + "/piece"])})
"""
    mnt = os.path.join(where, "mnt")
    os.makedirs(mnt, exist_ok=True)
    os.symlink("mnt/here", os.path.join(where, "link"))
    _, client = shows(tree, where=where, mnt=mnt, at=mnt)
    for name in ("loop", "dots", "link", "piece", "mirror/mnt", "mirror/mnt/here"):
        assert client.outcome(f"content({name!r})") == "ELOOP", name
    assert client.value("sorted(os.listdir(p()))") == [b"here", b"mirror"]
    assert client.value("b'mnt' in os.listdir(p('mirror'))") is False


def test_a_fifo_that_is_named_as_a_file_blocks_nobody(shows, where) -> None:
    os.mkfifo(os.path.join(where, "fifo"))
    tree = (
        "tree = Dir({'fifo': File(where + '/fifo'), 'dir': File(where), 'null': File('/dev/null')})"
    )
    _, client = shows(tree, where=where)
    outcomes = [client.outcome(f"content({name!r})") for name in ("fifo", "dir", "null")]
    assert outcomes == ["EINVAL", "EISDIR", "EINVAL"]


def test_a_file_is_opened_by_what_the_daemon_may_and_shown_by_its_mode(shows, where) -> None:
    os.chmod(os.path.join(where, "secret"), 0o600)
    tree = """
secret = where + "/secret"
tree = Dir({"as-is": File(secret), "wider": File(secret, mode=0o444, uid=7, gid=8, mtime=1.5)})
"""
    _, client = shows(tree, where=where)
    found = client.value("attributes('wider')")
    assert [found[name] for name in ("mode", "uid", "gid", "mtime_ns")] == [
        0o100444,
        7,
        8,
        1_500_000_000,
    ]
    assert client.value("attributes('as-is')['mode']") == 0o100600
    assert client.value("content('wider')") == b"secret"


def test_the_whole_tree_is_read_only(shows, where) -> None:
    _, client = shows(MIRRORS, where=where)
    for change in ("os.unlink(p('file'))", "os.mkdir(p('new'))", "open(p('file'), 'w')"):
        assert client.outcome(change) == "EROFS"


@pytest.mark.parametrize(
    "tree", ["Mirror(where)", "Union([where, below])", "Dir({'a': File(where + '/a')})"]
)
def test_the_kernel_asks_once_for_an_acl_that_is_absent(shows, tmp_path, tree) -> None:
    for name in ("where", "below"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"a")
    program, client = shows(
        f"tree = {tree}; options = MountOptions(cache_timeout=60)",
        where=str(tmp_path / "where"),
        below=str(tmp_path / "below"),
    )
    client.value("os.stat(p('a')).st_size")
    before = program.statistics()["datapath"]["requests"].get("GETXATTR", 0)
    for _ in range(5):
        asked = client.outcome("os.getxattr(p('a'), 'system.posix_acl_access')")
        assert asked in ("ENODATA", "EOPNOTSUPP")
    assert program.statistics()["datapath"]["requests"]["GETXATTR"] - before == 1


FEW = """
from zcfuse.fuse import _nodes
_nodes.LISTED_NODES = 4
tree = Dir({f"{n}": Bytes(b"%d" % n) for n in range(10)})
options = MountOptions(path="upcall")  # the data path would answer
"""


def test_a_listing_beside_many_nodes_makes_none_and_says_the_same(shows) -> None:
    program, client = shows(FEW)
    listed = client.value("sorted((e.name, e.inode(), e.is_file()) for e in os.scandir(p()))")
    assert program.statistics()["control"]["nodes"] == 4
    names = [str(n) for n in range(10)]
    assert listed == client.value(f"[(n.encode(), os.stat(p(n)).st_ino, True) for n in {names}]")
    assert client.value(f"[content(n) for n in {names}]") == [name.encode() for name in names]
