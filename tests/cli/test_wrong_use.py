"""Wrong use gets one line with the cause and the remedy, the right exit status, and no mount."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import refused, run_zcfuse
from tests.support import OrdinaryUser, find_mount, fuse_mounts, requires

pytestmark = requires("mounting")


@pytest.fixture
def refuse(zcfuse, source, mountpoint):
    """Run a `mount` that must be refused, and require that nothing is mounted afterwards."""

    def run(status, words, *options, source=source, mountpoint=mountpoint, **how):
        result = zcfuse("mount", *options, source, mountpoint, **how)
        refused(result, status, *words)
        assert find_mount(os.path.realpath(mountpoint)) is None

    return run


def test_a_missing_source(refuse, tmp_path):
    refuse(2, ["source", "nowhere", "does not exist", "create"], source=str(tmp_path / "nowhere"))


def test_a_source_that_is_a_file(refuse, tmp_path):
    file = tmp_path / "file"
    file.touch()
    refuse(2, [str(file), "the file is empty", "a directory"], source=str(file))


def test_a_source_below_a_file(refuse, tmp_path):
    (tmp_path / "file").touch()
    refuse(2, ["source", "not a directory"], source=str(tmp_path / "file" / "x"))


@requires("ordinary user")
@pytest.mark.parametrize(("mode", "word"), [(0o311, "not readable"), (0o644, "cannot be entered")])
def test_an_unreadable_source(ordinary_user, mode, word):
    source = ordinary_user.directory("closed")
    mountpoint = ordinary_user.directory("mnt")
    os.chmod(source, mode)
    result = run_zcfuse("mount", source, mountpoint, user=ordinary_user)
    refused(result, 1, source, word, "permission")


def test_a_missing_mountpoint(refuse, tmp_path):
    refuse(2, ["mount point", "nowhere", "create it"], mountpoint=str(tmp_path / "nowhere"))


def test_a_mountpoint_that_is_a_file(refuse, tmp_path):
    file = tmp_path / "file"
    file.touch()
    refuse(2, ["mount point", str(file), "not a directory"], mountpoint=str(file))


def test_a_mountpoint_that_has_a_zcfuse_mount(zcfuse, source, mountpoint):
    assert zcfuse("mount", source, mountpoint).returncode == 0
    result = zcfuse("mount", source, mountpoint)
    refused(result, 1, mountpoint, "busy", f"zcfuse umount {mountpoint}")
    assert zcfuse("umount", mountpoint).returncode == 0
    assert find_mount(mountpoint) is None


def test_a_mountpoint_that_has_another_mount(zcfuse, source):
    refused(zcfuse("mount", source, "/proc"), 1, "/proc", "busy", "proc", "choose another")


def test_a_mountpoint_inside_the_source(refuse, source):
    inside = os.path.join(source, "mnt")
    os.mkdir(inside)
    refuse(2, [inside, "inside the source"], mountpoint=inside)


def test_a_mountpoint_inside_the_source_by_a_symlink(refuse, source, tmp_path):
    os.mkdir(os.path.join(source, "mnt"))
    link = tmp_path / "link"
    link.symlink_to(os.path.join(source, "mnt"))
    refuse(2, ["inside the source"], mountpoint=str(link))


def test_a_source_inside_the_mountpoint(refuse, mountpoint):
    inside = os.path.join(mountpoint, "source")
    os.mkdir(inside)
    refuse(2, [inside, "inside the mount point"], source=inside)


def test_one_directory_as_both(refuse, source):
    refuse(2, ["the same directory", source], mountpoint=source)


@requires("private mounts")
@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (
            "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3",
            ["/dev/fuse", "No such file", "modprobe fuse"],
        ),
        ("mount --bind /etc/hostname /dev/fuse", ["/dev/fuse", "not a device", "mknod"]),
    ],
)
def test_no_fuse_device(source, mountpoint, prepare, words):
    script = f'{prepare}; exec "$@"'
    wrap = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    refused(run_zcfuse("mount", source, mountpoint, wrap=wrap), 1, *words)


@requires("root")
def test_a_fuse_device_that_is_closed_to_the_user(tmp_path_factory, ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    enter = ["nsenter", f"--mount=/proc/{ordinary_user.mountinfo_pid}/ns/mnt"]
    subprocess.run([*enter, "chmod", "600", "/dev/fuse"], check=True, timeout=20)
    result = run_zcfuse("mount", source, mountpoint, user=ordinary_user)
    refused(result, 1, "/dev/fuse", "permission denied", "chmod 666")


@requires("ordinary user")
def test_no_fusermount3(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    wrap = ("env", "PATH=/nonexistent")
    result = run_zcfuse("mount", source, mountpoint, user=ordinary_user, wrap=wrap)
    refused(result, 1, "fusermount3 is not installed", "install the package fuse3")


@requires("ordinary user", "fusermount3")
def test_a_mountpoint_that_the_user_may_not_write_to(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    os.chmod(mountpoint, 0o555)
    result = run_zcfuse("mount", source, mountpoint, user=ordinary_user)
    refused(result, 1, f"zcfuse: {mountpoint}: this user may not write", "mount as root")


@requires("ordinary user")
def test_passthrough_without_the_privilege(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    arguments = ("mount", "--path", "passthrough", source, mountpoint)
    result = run_zcfuse(*arguments, user=ordinary_user)
    refused(result, 1, "--path passthrough", "CAP_SYS_ADMIN", "--path auto")


@requires("root")
def test_passthrough_with_root_but_without_the_capability(refuse):
    wrap = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    refuse(1, ["--path passthrough", "CAP_SYS_ADMIN"], "--path", "passthrough", wrap=wrap)


@requires("ordinary user")
def test_allow_other_without_the_permission(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    result = run_zcfuse("mount", "--allow-other", source, mountpoint, user=ordinary_user)
    refused(result, 1, "--allow-other", "user_allow_other", "/etc/fuse.conf")


@requires("ordinary user")
def test_a_lock_budget_beyond_the_limit(ordinary_user):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    arguments = ("mount", "--lock-budget", "1T", source, mountpoint)
    wrap = ("prlimit", "--memlock=65536:65536")
    result = run_zcfuse(*arguments, user=ordinary_user, wrap=wrap)
    refused(result, 1, "--lock-budget", "65536", "ulimit -l")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bogus"], ["--bogus"]),
        (["-o", "bogus"], ["-o bogus", "unknown option", "allow_other"]),
        (["-o", "alow_other"], ["did you mean allow_other?"]),
        (["--rw", "--path", "naive"], ["--path naive", "rw", "another path"]),
        (["--rw", "--immutable"], ["immutable", "rw", "either"]),
        (["--rw", "--no-directory-lease"], ["--no-directory-lease: ", "rw"]),
        (["-o", "allow_other=1"], ["-o allow_other=1", "takes no value"]),
        (["-o", "threads="], ["-o threads=", "needs a value"]),
        (["-o", "threads"], ["-o threads", "needs a value"]),
        (["-o", "threads=many"], ["-o threads=many", "not a number"]),
        (["-o", "path=teleport"], ["path=teleport", "passthrough"]),
        (["--path", "teleport"], ["--path", "teleport", "passthrough"]),
        (["--threads", "x"], ["--threads"]),
        (["--threads", "1000"], ["--threads", "1000", "64"]),
        (["--cache-timeout", "-1"], ["--cache-timeout", "-1", "0 or more"]),
        (["--cache-timeout", "nan"], ["--cache-timeout", "nan", "0 or more"]),
        (["--stack-depth", "3"], ["--stack-depth", "3", "1 or 2"]),
        (["--lock-budget", "much"], ["--lock-budget", "64M"]),
        (["-o", "lock_budget=much"], ["-o lock_budget=much", "64M"]),
        (["--immutable", "--path", "naive"], ["--path naive", "immutable", "another path"]),
        (["-o", "immutable,path=naive"], ["path=naive", "immutable", "another path"]),
        (["--immutable", "--path", "passthrough"], ["--path passthrough", "immutable"]),
        (["--immutable", "--cache-timeout", "5"], ["--cache-timeout 5", "immutable", "either"]),
        (["--immutable", "--cache-timeout", "1"], ["--cache-timeout 1", "immutable", "either"]),
        (["-o", "immutable,cache_timeout=1"], ["-o cache_timeout=1", "immutable", "either"]),
        (["-o", "immutable=1"], ["-o immutable=1", "takes no value"]),
        (["--log-file", "/nonexistent/log"], ["--log-file /nonexistent/log", "directory"]),
    ],
)
def test_an_option_that_is_unknown_or_wrong(refuse, options, words):
    refuse(2, words, *options)


def test_a_missing_argument(zcfuse, source):
    refused(zcfuse("mount", source), 2, "MOUNTPOINT", "--help")
    refused(zcfuse("mount"), 2, "name SOURCE and MOUNTPOINT")


def test_an_unknown_command(zcfuse):
    refused(zcfuse("moumt"), 2, "moumt", "--help")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", ["not a zcfuse mount", "left alone"]),
        ("/proc", ["/proc", "not a zcfuse mount but proc", "umount(8)"]),
        ("/etc", ["/etc", "not a zcfuse mount", "zcfuse list"]),
        ("/nonexistent", ["/nonexistent", "does not exist"]),
    ],
)
@pytest.mark.parametrize("command", ["umount", "status"])
def test_what_is_not_ours_is_left_alone(zcfuse, command, path, words):
    refused(zcfuse(command, path), 2, *words)
    assert os.path.exists("/proc/self")


@requires("ordinary user", "root")
@pytest.mark.parametrize("command", ["umount", "status"])
def test_the_mount_of_another_user_is_left_alone(ordinary_user, command):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    enter = ("nsenter", f"--mount=/proc/{ordinary_user.mountinfo_pid}/ns/mnt")
    assert run_zcfuse("mount", source, mountpoint, wrap=enter).returncode == 0
    result = run_zcfuse(command, mountpoint, user=ordinary_user)
    refused(result, 1, mountpoint, "belongs to user 0")
    assert find_mount(mountpoint, ordinary_user.mountinfo_pid) is not None
    assert run_zcfuse("umount", mountpoint, wrap=enter).returncode == 0


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_a_killed_daemon_is_reported_and_its_mount_cleaned_up(zcfuse, mounted, path):
    daemon = mounted("--path", path)
    daemon.kill()
    refused(
        zcfuse("status", daemon.mountpoint),
        1,
        *(daemon.mountpoint, "gone (killed?)", f"zcfuse umount {daemon.mountpoint}"),
    )
    result = zcfuse("umount", daemon.mountpoint)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert daemon.mount is None


def test_the_mount_of_a_killed_daemon_is_replaced_with_a_line(zcfuse, mounted):
    daemon = mounted()
    daemon.kill()
    result = zcfuse("mount", daemon.source, daemon.mountpoint)
    line = f"zcfuse: {daemon.mountpoint}: the daemon of the mount there is gone: replaced\n"
    assert (result.returncode, result.stderr) == (0, line)
    assert len([one for one in fuse_mounts() if one.mountpoint == daemon.mountpoint]) == 1
    refused(zcfuse("mount", daemon.source, daemon.mountpoint), 1, "busy", "zcfuse umount")
    assert zcfuse("umount", daemon.mountpoint).returncode == 0


@pytest.mark.parametrize("how", ["not empty", "by sudo", "on somebody's directory"])
def test_what_surprises_about_a_mount_point_is_one_line(zcfuse, source, mountpoint, how):
    if how == "not empty":
        Path(mountpoint, "hidden").touch()
    elif os.geteuid() != 0:
        pytest.skip("requires root: not root")
    if how == "on somebody's directory":
        os.chown(mountpoint, 1000, 1000)
    environment = {"SUDO_UID": "1000" if how == "by sudo" else "0"}
    result = zcfuse("mount", "-o", "noatime,x-of.mine", source, mountpoint, env=environment)
    assert result.returncode == 0
    word = "hides the files of this directory" if how == "not empty" else "--allow-other"
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"zcfuse: {mountpoint}: ")
    assert word in line
    assert zcfuse("umount", mountpoint).returncode == 0


@requires("ordinary user", "root", "fusermount3")
def test_the_list_says_which_mounts_are_anothers(ordinary_user, zcfuse, mounted):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    mounted(source=source, mountpoint=mountpoint, user=ordinary_user)
    stranger = OrdinaryUser(ordinary_user.home, 12345, 12345, ordinary_user.mountinfo_pid)
    rows = json.loads(zcfuse("list", "--json", user=stranger).stdout)
    assert [row["state"] for row in rows if row["mountpoint"] == mountpoint] == ["not yours"]


@pytest.mark.parametrize(("typed", "meant"), [("monut", "mount"), ("statsu", "status")])
def test_the_nearest_command_is_suggested(zcfuse, typed, meant):
    refused(zcfuse(typed, "x"), 2, f"did you mean '{meant}'?")


@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_cleans_up_after_a_killed_daemon(ordinary_user, zcfuse, mounted):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    daemon = mounted(source=source, mountpoint=mountpoint, user=ordinary_user)
    daemon.kill()
    refused(zcfuse("status", mountpoint, user=ordinary_user), 1, "gone (killed?)")
    assert zcfuse("umount", mountpoint, user=ordinary_user).returncode == 0
    assert daemon.mount is None


def test_a_source_that_vanishes_between_the_check_and_the_mount(source, mountpoint):
    late = (
        "import zcfuse.cli.mount._shown as m, os\n"
        "check = m.check_device\n"
        f"m.check_device = lambda: (check(), os.rmdir({source!r}))\n"
        "from zcfuse.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", late, "mount", source, mountpoint],
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused(result, 1, source, "No such file")
    assert find_mount(mountpoint) is None


def test_a_data_path_that_cannot_start(refuse, mountpoint):
    faults = {"ZCFUSE_FAULTS": "mmap:ENOMEM:after=3"}
    words = [mountpoint, "could not start", "Cannot allocate memory"]
    refuse(1, words, "--path", "mmap", "--threads", "1", env=faults)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--survive", "--transport", "uring"], "--survive: a ring dies with its daemon;"),
        (["-o", "writable,no_directory_lease"], "-o no_directory_lease: rw needs the lease;"),
        (["--rw", "-o", "path=naive"], "-o path=naive: rw needs the data path;"),
    ],
)
def test_a_refused_option_is_named_as_its_user_wrote_it(refuse, options, said):
    refuse(2, [f"zcfuse: {said}"], *options)
