"""Clients change a union, and the changes go to its upper layer (docs/layers.md)."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.client import Client, Pair
from tests.integration.conftest import PASSTHROUGH
from tests.layers import writable
from tests.layers.conftest import mounted_by
from tests.support import Daemon, OrdinaryUser, let_everyone_reach, requires, skip_unless
from zcfuse.tree import Union

pytestmark = requires("mounting", "root", "overlay layers")

STRANGER = 12_345
LARGE = 64 << 20
WRITERS = ("ours", "theirs")
# user::rwx, user:9:r--, group::--x, mask::r-x, other::--x (acl(5), as the kernel has it).
ACL = bytes.fromhex(
    "0200000001000700ffffffff020004000900000004000100ffffffff10000500ffffffff20000100ffffffff"
)


@pytest.fixture(params=["pool", PASSTHROUGH])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Our union and the kernel's overlayfs of the same two layers."""
    skip_unless("mounting", "root", "overlay layers")
    let_everyone_reach(tmp_path)
    writable.write(tmp_path / "top" / "file", b"first\n" * 1000)
    writable.write(tmp_path / "top" / "dir" / "inner", b"inner")
    writable.write(tmp_path / "bottom" / "dir" / "lower", b"lower", 0o666)
    writable.write(tmp_path / "bottom" / "open" / "theirs", b"theirs", 0o666)
    os.chmod(tmp_path / "bottom" / "open", 0o1777)
    with writable.both(
        tmp_path, ["top", "bottom"], "--allow-other", "--path", request.param
    ) as pair:
        yield pair


def layer(pair: Pair, name: str, upper: str = "ours") -> Path:
    """A file of a layer beside the mount."""
    return Path(os.fsdecode(pair.mount.value("p('')"))).parent / upper / name


def test_a_change_leaves_the_lower_layers_alone(pair: Pair) -> None:
    pair.same("f = open(p('file'), 'r+b'); f.write(b'FIRST'); f.close()")
    assert pair.same("open(p('file'), 'rb').read(6)") == b"FIRST\n"
    assert layer(pair, "file", "top").read_bytes() == b"first\n" * 1000
    assert layer(pair, "file").read_bytes().startswith(b"FIRST\n")


def test_a_reader_goes_on_reading_the_old_file_while_it_is_copied_up(pair: Pair) -> None:
    mount = pair.mount
    mount.value("reader = os.open(p('file'), os.O_RDONLY)")
    mount.value("mapped = mmap.mmap(reader, 0, prot=mmap.PROT_READ)")
    mount.value("writer = os.open(p('file'), os.O_WRONLY)")
    mount.value("os.write(writer, b'FIRST')")
    assert mount.value("os.pread(reader, 6, 0)") == b"first\n"
    assert mount.value("mapped[:6]") == b"first\n"
    assert mount.value("open(p('file'), 'rb').read(6)") == b"FIRST\n"


def test_a_file_keeps_its_inode_number_when_it_is_copied_up(pair: Pair) -> None:
    before = pair.mount.value("os.stat(p('file')).st_ino")
    pair.mount.value("open(p('file'), 'ab').close()")
    assert pair.mount.value("os.stat(p('file')).st_ino") == before
    assert layer(pair, "file").stat().st_ino != before


def test_what_is_changed_through_a_descriptor_that_reads_reaches_the_copy(pair: Pair) -> None:
    pair.same("reader = os.open(p('file'), os.O_RDONLY)")
    pair.same("os.fchmod(reader, 0o600)")
    assert pair.same("oct(os.fstat(reader).st_mode)") == "0o100600"
    assert pair.same("oct(os.stat(p('file')).st_mode)") == "0o100600"
    pair.same("os.setxattr(reader, 'user.note', b'value')")
    assert pair.same("os.getxattr(p('file'), 'user.note')") == b"value"
    assert pair.same("os.read(reader, 5)") == b"first"


@pytest.mark.parametrize("first", ["None", "os.chmod(p('file'), 0o640)"])
def test_a_link_to_a_file_of_a_layer_is_another_name_of_its_copy(pair: Pair, first: str) -> None:
    pair.same("os.stat(p('file')).st_nlink")
    pair.same(first)
    pair.same("os.link(p('file'), p('other'))")
    assert pair.same("[os.stat(p(name)).st_nlink for name in ('file', 'other')]") == [2, 2]
    pair.same("os.chmod(p('other'), 0o604)")
    assert pair.same("oct(os.stat(p('file')).st_mode)") == "0o100604"
    pair.same("f = open(p('other'), 'r+b'); f.write(b'FIRST'); f.close()")
    assert pair.same("open(p('file'), 'rb').read(6)") == b"FIRST\n"
    pair.same("os.unlink(p('file'))")
    assert pair.same("os.stat(p('other')).st_nlink") == 1
    pair.same("os.chmod(p('other'), 0o600)")
    assert pair.same("oct(os.stat(p('other')).st_mode)") == "0o100600"


def test_a_descriptor_from_before_the_copy_follows_the_copy_to_other_names(pair: Pair) -> None:
    pair.same("reader = os.open(p('file'), os.O_RDONLY)")
    pair.same("os.chmod(p('file'), 0o600)")
    for old, new, mode in (("file", "once", "0o640"), ("once", "dir/twice", "0o604")):
        pair.same(f"os.rename(p('{old}'), p('{new}'))")
        pair.same(f"os.fchmod(reader, {mode})")
        for shown in (f"os.stat(p('{new}'))", "os.fstat(reader)"):
            assert pair.same(f"oct({shown}.st_mode & 0o777)") == mode


def test_a_working_directory_stays_when_it_is_copied_up(pair: Pair) -> None:
    pair.same("os.chdir(p('dir'))")
    pair.same("before = os.stat('.').st_ino")
    pair.same("open('new', 'wb').close()")
    assert pair.same("sorted(os.listdir('.'))") == ["inner", "lower", "new"]
    assert pair.mount.value("os.stat('.').st_ino == before")


def test_a_directory_of_a_lower_layer_is_not_renamed(pair: Pair) -> None:
    assert pair.same("os.rename(p('dir'), p('other'))") == "EXDEV"
    pair.same("os.mkdir(p('made'))")
    pair.same("os.rename(p('made'), p('moved'))")
    assert pair.same("os.path.isdir(p('moved'))") is True


def test_a_directory_that_was_removed_and_made_again_is_empty(pair: Pair) -> None:
    pair.same("import shutil; shutil.rmtree(p('dir'))")
    assert pair.same("os.listdir(p('dir'))") == "ENOENT"
    pair.same("os.mkdir(p('dir'))")
    assert pair.same("os.listdir(p('dir'))") == []
    marks = [os.getxattr(layer(pair, "dir", of), "trusted.overlay.opaque") for of in WRITERS]
    assert marks == [b"y", b"y"]


def test_a_removed_name_becomes_the_whiteout_that_overlayfs_makes(pair: Pair) -> None:
    pair.same("os.unlink(p('file'))")
    for upper in WRITERS:
        status = layer(pair, "file", upper).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    pair.same("os.mkfifo(p('file'))")
    assert stat.S_ISFIFO(layer(pair, "file").lstat().st_mode)


def test_a_stranger_makes_files_of_his_own_over_whiteouts_too(pair: Pair, tmp_path: Path) -> None:
    mount = Client(str(tmp_path / "mnt"), uid=STRANGER)
    native = Client(str(tmp_path / "overlay"), uid=STRANGER)
    strangers = Pair(mount, native)
    try:
        assert strangers.same("os.unlink(p('file'))") == "EACCES"
        assert strangers.same("os.unlink(p('open/theirs'))") == "EPERM"
        strangers.same("open(p('open/theirs'), 'ab').close()")
        pair.same("os.unlink(p('open/theirs'))")
        strangers.same("os.mkdir(p('open/theirs'), 0o750)")
        strangers.same("os.rmdir(p('open/theirs'))")
        strangers.same("open(p('open/theirs'), 'xb').close()")
        shown = "s = os.stat(p('open/theirs')); shown = (oct(s.st_mode), s.st_uid, s.st_gid)"
        strangers.same(shown)
        assert strangers.same("shown")[1] == STRANGER
    finally:
        mount.close()
        native.close()


def test_a_copy_keeps_owner_times_attributes_and_holes(tmp_path: Path) -> None:
    original = tmp_path / "low" / "sparse"
    writable.write(original, b"begin")
    os.truncate(original, 1 << 30)
    os.chown(original, 7, 8)
    os.chmod(original, 0o4711)
    os.setxattr(original, "user.note", b"value")
    os.setxattr(original, "system.posix_acl_access", ACL)
    os.utime(original, ns=(10**9, 2 * 10**9 + 5))
    (tmp_path / "up").mkdir()
    with writable.union(tmp_path, ["low"], "up", "mnt") as daemon:
        client = Client(daemon.mountpoint, daemon)
        client.value("os.setxattr(p('sparse'), 'user.more', b'x')")
        client.close()
    copy = tmp_path / "up" / "sparse"
    status, before = copy.stat(), original.stat()
    assert status.st_blocks < 64
    for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
        assert getattr(status, field) == getattr(before, field)
    assert os.getxattr(copy, "user.note") == b"value"
    assert os.getxattr(copy, "system.posix_acl_access") == ACL
    assert copy.open("rb").read(5) == b"begin"


@pytest.mark.parametrize("where", ["ours", "top"])
@pytest.mark.parametrize("change", ["open(p('file'), 'ab').close()", "os.chmod(p('file'), 0o600)"])
def test_a_metacopy_gets_its_bytes_before_it_is_changed(
    tmp_path: Path, where: str, change: str
) -> None:
    data = b"bytes\n" * 10_000
    writable.write(tmp_path / "bottom" / "data", data)
    writable.write(tmp_path / where / "file", b"")
    os.truncate(tmp_path / where / "file", len(data))
    os.setxattr(tmp_path / where / "file", "trusted.overlay.metacopy", b"")
    os.setxattr(tmp_path / where / "file", "trusted.overlay.redirect", b"/data")
    for name in ("ours", "top"):
        (tmp_path / name).mkdir(exist_ok=True)
    with writable.union(tmp_path, ["top", "bottom"], "ours", "mnt") as daemon:
        client = Client(daemon.mountpoint, daemon)
        client.value("reader = open(p('file'), 'rb')")
        number = client.value("os.stat(p('file')).st_ino")
        client.value(change)
        assert client.value("open(p('file'), 'rb').read()") == data
        assert client.value("reader.read()") == data
        assert client.value("os.stat(p('file')).st_ino") == number
        client.value("f = open(p('file'), 'r+b'); f.write(b'BYTES'); f.close()")
        client.close()
    assert (tmp_path / "ours" / "file").read_bytes() == b"BYTES" + data[5:]
    assert (tmp_path / "bottom" / "data").read_bytes() == data
    assert "trusted.overlay.metacopy" not in os.listxattr(tmp_path / "ours" / "file")
    assert os.listdir(tmp_path / "ours.work" / "work") == []


def test_what_lies_behind_a_redirect_is_changed_as_in_overlayfs(tmp_path: Path) -> None:
    for name in ("inner", "sub/leaf", "gone"):
        writable.write(tmp_path / "bottom" / "dir" / name, name.encode())
    for upper in WRITERS:
        (tmp_path / upper / "moved").mkdir(parents=True)
        os.setxattr(tmp_path / upper / "moved", "trusted.overlay.redirect", b"dir")
        os.mknod(tmp_path / upper / "dir", stat.S_IFCHR, os.makedev(0, 0))
    with writable.both(tmp_path, ["bottom"]) as pair:
        assert pair.same("sorted(os.listdir(p('moved')))") == [b"gone", b"inner", b"sub"]
        pair.same("open(p('moved/inner'), 'ab').write(b' more')")
        pair.same("open(p('moved/sub/new'), 'wb').write(b'new')")
        pair.same("os.chmod(p('moved/sub/leaf'), 0o600)")
        pair.same("os.unlink(p('moved/gone'))")
        pair.same("os.rename(p('moved'), p('other'))")
        pair.same("os.mkdir(p('dir'))")
        assert pair.same("os.listdir(p('dir'))") == []
        for name in ("inner", "sub/new", "sub/leaf"):
            pair.same(f"open(p('moved/{name}'), 'rb').read()")
            pair.same(f"os.unlink(p('moved/{name}'))")
        pair.same("os.rmdir(p('moved'))")
        pair.same("os.rmdir(p('moved/sub'))")
        pair.same("os.rmdir(p('moved'))")
        assert pair.same("os.listdir(p(''))") == [b"dir"]


def test_an_archive_is_copied_up_by_its_bytes(tmp_path: Path) -> None:
    writable.write(tmp_path / "in" / "dir" / "member", b"member" * 10_000)
    subprocess.run(["tar", "cf", "set.tar", "-C", "in", "dir"], cwd=tmp_path, check=True)
    (tmp_path / "up").mkdir()
    with writable.union(tmp_path, ["set.tar"], "up", "mnt") as daemon:
        client = Client(daemon.mountpoint, daemon)
        client.value("f = open(p('dir/member'), 'r+b'); f.write(b'MEMBER'); f.close()")
        assert client.value("open(p('dir/member'), 'rb').read()") == b"MEMBER" + b"member" * 9999
        client.close()
    assert (tmp_path / "up" / "dir" / "member").read_bytes() == b"MEMBER" + b"member" * 9999


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_changes_a_union_with_marks_of_his_own(
    ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    low, upper, mountpoint = (ordinary_user.directory(name) for name in ("low", "up", "mnt"))
    made = "mkdir -p dir gone/deep; echo a > file; echo b > dir/inner; echo c > gone/deep/er"
    assert ordinary_user.run("sh", "-c", f"cd {low} && {made}").returncode == 0
    layers = ("--layer", low, "--upper", upper)
    daemon = Daemon("", mountpoint, *layers, user=ordinary_user, log=str(tmp_path / "log"))
    changes = (
        "echo more >> file; rm dir/inner; rm -r gone; mkdir gone; mv file moved; ls -R; cat *d"
    )
    shown = ordinary_user.run("sh", "-ec", f"cd {mountpoint} && {changes}")
    daemon.unmount()
    names = [".:", "dir", "gone", "moved", "./dir:", "./gone:"]
    assert shown.stdout.split() == [*names, "a", "more"]
    assert os.getxattr(f"{upper}/gone", "user.overlay.opaque") == b"y"
    (tmp_path / "overlay").mkdir()
    options = f"ro,userxattr,lowerdir={upper}:{low}"
    place = str(tmp_path / "overlay")
    with mounted_by("mount", "-t", "overlay", "-o", options, "none", place) as root:
        listed = subprocess.run(["ls", "-R"], cwd=root, capture_output=True, check=True).stdout
    assert listed.decode().split() == names


@requires("ordinary user", "fusermount3")
def test_a_closed_directory_that_a_kill_left_in_the_work_directory_is_removed(
    ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    low, upper, mountpoint = (ordinary_user.directory(name) for name in ("low", "up", "mnt"))
    work = f"{upper}.work/work"
    made = "mkdir -p left/inner; touch left/inner/file; chmod 0 left/inner; chmod 0 left"
    left = ordinary_user.run("sh", "-ec", f"mkdir -p {work}; cd {work}; {made}")
    assert (left.stderr, os.listdir(work)) == ("", ["left"])
    layers = ("--layer", low, "--upper", upper)
    daemon = Daemon("", mountpoint, *layers, user=ordinary_user, log=str(tmp_path / "log"))
    found = os.listdir(work)
    daemon.unmount()
    assert found == []


@requires("ordinary user", "fusermount3")
def test_a_directory_that_its_owner_cannot_list_leaves_nothing_in_the_work_directory(
    ordinary_user: OrdinaryUser, tmp_path: Path
) -> None:
    low, upper, mountpoint = (ordinary_user.directory(name) for name in ("low", "up", "mnt"))
    made = f"cd {low}; mkdir box; touch box/file; chmod 300 box"
    assert ordinary_user.run("sh", "-ec", made).returncode == 0
    layers = ("--layer", low, "--upper", upper)
    daemon = Daemon("", mountpoint, *layers, user=ordinary_user, log=str(tmp_path / "log"))
    changed = ordinary_user.run("sh", "-ec", f"cd {mountpoint}/box; rm file; mkdir file")
    found = os.listdir(f"{upper}.work/work")
    daemon.unmount()
    assert (changed.stderr, found) == ("", [])
    assert stat.S_ISDIR(os.stat(f"{upper}/box/file").st_mode)


def test_one_upper_layer_has_one_mount(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "up").mkdir()
    first = Union([tmp_path / "low"], upper=tmp_path / "up")
    with pytest.raises(OSError, match="another mount") as refused:
        Union([tmp_path / "low"], upper=tmp_path / "up")
    assert refused.value.errno == errno.EBUSY
    first.close()
    Union([tmp_path / "low"], upper=tmp_path / "up").close()


def test_a_daemon_killed_in_a_copy_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * (LARGE >> 20)
    writable.write(tmp_path / "low" / "large", data)
    (tmp_path / "up").mkdir()
    outcomes = set()
    for delay in (0, 0.005, 0.02, 0.05, 0.1, 0.5):
        daemon = writable.start(tmp_path, ["low"], "up", f"mnt{delay}")
        opening = f"open({daemon.mountpoint + '/large'!r}, 'r+b')"
        client = subprocess.Popen([sys.executable, "-c", opening], stderr=subprocess.DEVNULL)
        time.sleep(delay)  # a point in the copy, or before or behind it
        daemon.kill()
        client.wait(20)
        daemon.unmount()  # the dead mount
        copies = os.listdir(tmp_path / "up")
        outcomes.add(tuple(copies))
        assert copies in ([], ["large"])
        if copies:
            assert (tmp_path / "up" / "large").read_bytes() == data
            (tmp_path / "up" / "large").unlink()
    Union([tmp_path / "low"], upper=tmp_path / "up").close()
    assert os.listdir(tmp_path / "up.work" / "work") == []
