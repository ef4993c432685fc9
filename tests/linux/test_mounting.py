"""Mounting without a daemon: the table of mounts, the helper's protocol, the way back."""

import errno
import os
import subprocess
import sys

import pytest

from tests.support import requires
from tests.support._user import CHECKOUT
from zcfuse.linux import _connection as connection
from zcfuse.linux import _mounting as mounting
from zcfuse.linux._mount_probe import Answer, probe
from zcfuse.linux._mount_table import (
    mount_at,
    parse_mountinfo,
    read_mounts,
    resolve_mountpoint,
)

LINES = (
    rb"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw" + b"\n"
    rb"70 22 0:45 / /mnt/a\040b\011c\012d\134e rw,nosuid - fuse.zcfuse /x\054y\043z "
    rb"ro,user_id=1000,group_id=100,default_permissions" + b"\n"
    rb"71 22 0:46 /sub /mnt/two rw shared:2 master:1 propagate_from:9 - tmpfs  rw" + b"\n"
    rb"garbage" + b"\n"
    rb"72 71 0:47 / /mnt/two rw - fuse.zcfuse src ro,user_id=0,group_id=0" + b"\n"
)
ODD = "a,b\\c d\te#\nf"


def test_octal_escapes_are_undone_in_every_field():
    entry = parse_mountinfo(LINES)[1]
    assert entry.mountpoint == "/mnt/a b\tc\nd\\e"
    assert entry.source == "/x,y#z"


def test_optional_fields_and_an_empty_source_do_not_shift_the_rest():
    entry = parse_mountinfo(LINES)[2]
    assert (entry.fstype, entry.source, entry.super_options) == ("tmpfs", "", ("rw",))
    assert (entry.root, entry.device) == ("/sub", (0, 46))


def test_a_line_that_does_not_parse_is_left_out():
    assert [entry.mount_id for entry in parse_mountinfo(LINES)] == [22, 70, 71, 72]


def test_owner_and_kind_come_from_the_line():
    root, ours = parse_mountinfo(LINES)[:2]
    assert (ours.is_ours, ours.owner) == (True, (1000, 100))
    assert (root.is_ours, root.owner) == (False, (0, 0))


@pytest.mark.parametrize("order", [1, -1])
def test_the_topmost_of_two_mounts_is_found_in_any_order_of_lines(order):
    entry = mount_at("/mnt/two", parse_mountinfo(LINES)[::order])
    assert entry is not None
    assert entry.mount_id == 72


def test_undecodable_bytes_survive():
    line = b"70 22 0:45 / /mnt/\xff rw - fuse.zcfuse \xfe ro\n"
    entry = parse_mountinfo(line)[0]
    assert os.fsencode(entry.mountpoint) == b"/mnt/\xff"


def test_this_process_sees_its_root():
    assert mount_at("/") is not None
    assert any(entry.fstype == "proc" for entry in read_mounts())


def test_a_mountpoint_is_resolved_over_symlinks(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "again").symlink_to(tmp_path / "link")
    assert resolve_mountpoint(tmp_path / "again") == str(tmp_path / "real")
    assert resolve_mountpoint(str(tmp_path / "missing")) == str(tmp_path / "missing")
    assert resolve_mountpoint("/proc/") == "/proc"
    (tmp_path / "proc").symlink_to("/proc")
    assert resolve_mountpoint(tmp_path / "proc") == "/proc"


def test_a_symlink_that_leads_to_itself_ends(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert resolve_mountpoint(tmp_path / "loop") == str(tmp_path / "loop")


def test_the_abort_file_is_named_after_the_kernels_device_number():
    assert connection.abort_file((0, 45)).endswith("/45/abort")
    assert connection.abort_file((7, 1)).endswith(f"/{(7 << 20) + 1}/abort")


def test_what_cannot_be_aborted_or_tuned_is_said():
    assert connection.open_abort_file((4000, 0)) == -1
    assert connection.write_abort(-1) is False
    assert "No such file" in connection.set_read_ahead((4000, 0), 1024)


def test_a_directory_that_is_no_mount_answers():
    assert probe("/") is Answer.ALIVE


def test_the_helpers_complaints_become_errors():
    with pytest.raises(OSError, match="busy") as caught:
        mounting._raise_helper_error("fusermount3: failed: Device or resource busy\n", "/m")
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(mounting.MountError, match=r"user_allow_other.*fuse\.conf"):
        mounting._raise_helper_error("fusermount3: ... if 'user_allow_other' is set\n", "/m")
    with pytest.raises(mounting.MountError, match="/m: fusermount3: one; two"):
        mounting._raise_helper_error("fusermount3: one\nfusermount3: two\n", "/m")


# Mounts without a daemon: these tests use only mountinfo and umount2, which need no answer.
ATTACH = """
import os, sys
from zcfuse.linux import _mounting as mounting
from zcfuse.linux._mount_table import mount_at
source, mountpoint, way = sys.argv[1:]
if way == "helper":
    mounting.has_capability = lambda capability: False
kernel = mounting.attach(source, mountpoint, allow_other=False)
entry = mount_at(mountpoint)
assert entry == kernel.entry(), entry
assert (entry.source, entry.fstype) == (source, "fuse.zcfuse"), entry
assert {"ro", "nosuid", "nodev"} <= set(entry.options), entry
assert "default_permissions" in entry.super_options, entry
assert entry.owner == (os.geteuid(), os.getegid()), entry
fd = kernel.take_descriptor()
assert not os.get_inheritable(fd)
assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/fuse"
kernel.unmount()
assert kernel.entry() is None
kernel.unmount()
kernel.abandon()
os.close(fd)
kernel.close()
print("done")
"""


@pytest.mark.parametrize("way", ["direct", "helper"])
@requires("root", "fusermount3")
def test_root_mounts_and_unmounts_by_either_way(tmp_path, way):
    mountpoint = tmp_path / ODD
    mountpoint.mkdir()
    result = subprocess.run(
        [sys.executable, "-c", ATTACH, f"/{ODD}", str(mountpoint), way],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=CHECKOUT,
    )
    assert (result.stdout, result.stderr) == ("done\n", "")


@requires("mounting", "root")
def test_of_two_mounts_on_one_directory_the_first_stays_and_the_other_gets_an_error(tmp_path):
    first = mounting.attach("first", str(tmp_path), allow_other=False)
    try:
        with pytest.raises(mounting.MountError, match="another zcfuse mount of first came first"):
            mounting.attach("second", str(tmp_path), allow_other=False)
        here = [entry for entry in read_mounts() if entry.mountpoint == str(tmp_path)]
        assert [entry.source for entry in here] == ["first"]
        assert mount_at(str(tmp_path)) == first.entry()
    finally:
        first.abandon()
        first.close()


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_mounts_and_unmounts_by_the_helper(ordinary_user):
    mountpoint = ordinary_user.directory(ODD)
    environment = ["env", f"PYTHONPATH={CHECKOUT}"]
    result = ordinary_user.run(
        *environment, sys.executable, "-c", ATTACH, f"/{ODD}", mountpoint, "direct"
    )
    assert (result.stdout, result.stderr) == ("done\n", "")


@requires("root")
def test_a_busy_mount_is_ebusy_and_can_be_abandoned(tmp_path):
    with_path = (
        "import os, sys\n"
        "from zcfuse.linux import _mounting as m\n"
        "kernel = m.attach('x', sys.argv[1], allow_other=False)\n"
        # O_PATH sends no request and keeps the mount busy.
        "held = os.open(sys.argv[1], os.O_PATH)\n"
        "try: kernel.unmount()\n"
        "except OSError as error: print(error.errno)\n"
        "kernel.abandon(); print(kernel.entry())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", with_path, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=CHECKOUT,
    )
    assert result.stdout.split() == [str(errno.EBUSY), "None"], result


@requires("root")
def test_a_mount_that_was_moved_is_found_and_unmounted(tmp_path):
    ends = [str(tmp_path / "one"), str(tmp_path / "two")]
    for end in ends:
        os.mkdir(end)
    program = (
        "import os, sys, subprocess\n"
        "from zcfuse.linux import _mounting as m\n"
        "one, two = sys.argv[1:]\n"
        "kernel = m.attach('x', one, allow_other=False)\n"
        # mount(8) would stat it, but no daemon serves it.
        "assert m._libc.mount(one.encode(), two.encode(), None, 8192, None) == 0\n"
        "print(kernel.entry().mountpoint == two)\n"
        "kernel.unmount(); print(kernel.entry())\n"
    )
    result = subprocess.run(
        [*("unshare", "--mount", "--propagation", "private"), sys.executable, "-c", program, *ends],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=CHECKOUT,
    )
    assert result.stdout.split() == ["True", "None"], result


@requires("root")
def test_a_mount_that_got_the_same_numbers_is_left_alone(tmp_path):
    program = (
        "import os, sys\n"
        "from zcfuse.linux import _mounting as m\n"
        "first = m.attach('x', sys.argv[1], allow_other=False)\n"
        "first.unmount()\n"
        # The kernel reuses freed numbers, lowest first, so this mount has the first one's.
        "second = m.attach('x', sys.argv[1], allow_other=False)\n"
        "first.unmount(); first.abandon()\n"
        "print(first.entry() is None, second.entry() is not None)\n"
        "second.unmount()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=CHECKOUT,
    )
    assert result.stdout.split() == ["True", "True"], result
