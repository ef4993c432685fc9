"""`zcfuse mount`: its promise when it returns, and how its daemon ends."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import busy, ended, refused
from tests.support import MOUNT_FUSECTL, find_mount, requires

pytestmark = requires("mounting")

PATHS = ["naive", "auto"]
PRIVATE = ["unshare", "--mount", "--propagation", "private"]


@pytest.fixture
def status_of(zcfuse, mountpoint):
    def read(*, of=mountpoint, user=None):
        result = zcfuse("status", "--json", of, user=user)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return read


@pytest.mark.parametrize("path", PATHS)
def test_it_returns_silently_once_the_mount_answers(zcfuse, source, mountpoint, path):
    with open(os.path.join(source, "greeting"), "w") as file:
        file.write("hello")
    result = zcfuse("mount", "--path", path, source, mountpoint)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    read = subprocess.run(
        ["cat", os.path.join(mountpoint, "greeting")], capture_output=True, timeout=20
    )
    assert read.stdout == b"hello"
    assert zcfuse("umount", mountpoint).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [((), set()), pytest.param(("--allow-other",), {"allow_other"}, marks=requires("root"))],
)
def test_findmnt_shows_source_type_and_options(zcfuse, source, mountpoint, arguments, allowed):
    mounted = zcfuse("mount", *arguments, source, mountpoint)
    assert (mounted.returncode, mounted.stderr) == (0, "")
    result = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", mountpoint],
        capture_output=True,
        text=True,
        timeout=20,
    )
    shown, kind, options = result.stdout.split()
    assert (shown, kind) == (source, "fuse.zcfuse")
    assert {"ro", "nosuid", "nodev", "default_permissions"} | allowed <= set(options.split(","))


def test_a_source_with_odd_characters_is_shown_as_it_is(zcfuse, tmp_path, mountpoint):
    odd = tmp_path / "a,b\\c d\te#\nf"
    odd.mkdir()
    assert zcfuse("mount", str(odd), mountpoint).returncode == 0
    mount = find_mount(mountpoint)
    assert mount is not None
    # The test's reader of mountinfo decodes every octal escape.
    assert mount.source == str(odd)


def test_options_of_both_kinds_reach_the_daemon(zcfuse, source, mountpoint, status_of):
    result = zcfuse(
        *("mount", source, mountpoint, "-o", "ro,cache_timeout=7,threads=2,stack_depth=2"),
        *("-o", "lock_budget=3K,no_prefault,path=pool", "--threads", "1"),
    )
    assert result.returncode == 0, result.stderr
    options = status_of()["options"]
    assert options["cache_timeout"] == 7
    assert options["threads"] == 1
    assert options["stack_depth"] == 2
    assert options["lock_budget"] == 3 << 10
    assert options["prefault"] is False
    assert options["path"] == "pool"


def test_the_long_options_reach_the_daemon(zcfuse, source, mountpoint, status_of):
    options = ("--no-prefault", "--stack-depth", "2", "--lock-budget", "1.5K", "--path", "mmap")
    assert zcfuse("mount", *options, source, mountpoint).returncode == 0
    found = status_of()["options"]
    assert (found["prefault"], found["stack_depth"]) == (False, 2)
    assert (found["lock_budget"], found["path"]) == (3 << 9, "mmap")


def test_the_daemon_gives_back_what_its_caller_held(zcfuse, source, mountpoint, status_of):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    # After `exec 9>lock; zcfuse mount ...` in a shell, the daemon must not keep the lock.
    result = subprocess.run(
        [sys.executable, "-m", "zcfuse", "mount", source, mountpoint],
        pass_fds=(writer,),
        timeout=40,
    )
    assert result.returncode == 0
    os.close(writer)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert status_of()["pid"]


@requires("ordinary user", "fusermount3")
def test_the_default_lock_budget_is_what_the_limit_leaves(ordinary_user, zcfuse, status_of):
    source, mountpoint = ordinary_user.directory("source"), ordinary_user.directory("mnt")
    # A process cannot raise the limit that the tests started with.
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    room = 4 << 20 if hard == resource.RLIM_INFINITY else min(4 << 20, hard)
    limit = ("prlimit", f"--memlock={room}:{room}")
    arguments = ("mount", "--path", "pool", source, mountpoint)
    assert zcfuse(*arguments, user=ordinary_user, wrap=limit).returncode == 0
    document = status_of(user=ordinary_user, of=mountpoint)
    assert document["options"]["lock_budget"] == room
    assert document["datapath"]["pool"]["locked"] <= room
    assert zcfuse("umount", mountpoint, user=ordinary_user).returncode == 0


def test_the_daemon_leaves_its_parent_and_its_directory(zcfuse, source, mountpoint, status_of):
    zcfuse("mount", source, mountpoint)
    pid = status_of()["pid"]
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unmounts_and_the_exit_status_is_zero(mounted, path, number):
    daemon = mounted("--path", path)
    daemon.process.send_signal(number)
    assert daemon.wait() == 0
    assert daemon.mount is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("command", [["umount"], ["fusermount3", "-u"]])
@requires("root")
def test_an_unmount_from_outside_ends_the_daemon_with_zero(mounted, path, command):
    daemon = mounted("--path", path)
    subprocess.run([*command, daemon.mountpoint], check=True, timeout=20)
    assert daemon.wait() == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_busy_mount_is_detached_by_a_second_signal_with_a_line(mounted, path):
    daemon = mounted("--path", path)
    with busy(daemon.mountpoint):
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.5)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
    assert daemon.mount is None
    assert "detached lazily" in daemon.log()


@requires("root", "private mounts")
def test_an_abort_ends_the_daemon_with_one_and_leaves_nothing_mounted(tmp_path, source, mountpoint):
    # fusectl may not be mounted; the test mounts it in a new namespace.
    script = (
        f"set -e; {MOUNT_FUSECTL}"
        + """
    "$0" -m zcfuse mount --foreground "$1" "$2" & daemon=$!
    for i in $(seq 200); do grep -q " $2 " /proc/self/mountinfo && break; sleep 0.05; done
    timeout 20 stat "$2" >/dev/null
    minor=$(grep " $2 " /proc/self/mountinfo | cut -d' ' -f3 | cut -d: -f2)
    echo 1 > /sys/fs/fuse/connections/$minor/abort
    status=0; wait $daemon || status=$?
    grep " $2 " /proc/self/mountinfo || echo "ended $status, nothing mounted"
    """
    )
    result = subprocess.run(
        [*PRIVATE, "bash", "-c", script, sys.executable, source, mountpoint],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout == "ended 1, nothing mounted\n", result
    assert "aborted" in result.stderr


def test_the_log_file_gets_the_log_of_a_daemon_in_the_background(
    zcfuse, tmp_path, source, mountpoint
):
    log = tmp_path / "zcfuse.log"
    zcfuse("mount", "--log-file", str(log), source, mountpoint)
    assert f"serves {source} at {mountpoint}" in log.read_text()
    zcfuse("umount", mountpoint)
    assert f"unmounted {mountpoint}" in log.read_text()


def test_a_daemon_that_dies_before_it_is_ready_is_reported(zcfuse, source, mountpoint):
    broken = "import zcfuse.control._daemon as d, os; d.run_daemon = lambda *a, **k: os.abort()"
    code = f"{broken}; from zcfuse.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "mount", source, mountpoint],
        capture_output=True,
        text=True,
        timeout=60,
    )
    refused(result, 1, "killed by SIGABRT before the mount was ready")


def test_the_descriptor_limit_of_the_daemon_is_raised(zcfuse, source, mountpoint, status_of):
    zcfuse("mount", source, mountpoint, wrap=("prlimit", "--nofile=64:4096"))
    pid = status_of()["pid"]
    with open(f"/proc/{pid}/limits") as file:
        line = next(line for line in file if line.startswith("Max open files"))
    assert line.split()[3:5] == ["4096", "4096"]


def test_no_child_and_no_stranger_inherits_the_connection(zcfuse, source, mountpoint, status_of):
    zcfuse("mount", source, mountpoint)
    pid = status_of()["pid"]
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        if target == "/dev/fuse" or target.startswith("socket:"):
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                flags = next(line for line in file if line.startswith("flags:"))
            assert int(flags.split()[1], 8) & os.O_CLOEXEC, target


@pytest.mark.parametrize("path", PATHS)
@requires("ordinary user", "fusermount3")
def test_an_ordinary_user_mounts_reads_and_unmounts(ordinary_user, zcfuse, status_of, path):
    source = ordinary_user.directory("a,b\\c d")
    mountpoint = ordinary_user.directory("mnt")
    ordinary_user.run("sh", "-c", 'echo hello > "$0/greeting"', source)
    result = zcfuse("mount", "--path", path, source, mountpoint, user=ordinary_user)
    assert (result.returncode, result.stderr) == (0, "")
    mount = find_mount(mountpoint, ordinary_user.mountinfo_pid)
    assert mount is not None
    assert mount.source == source
    assert {"ro", "nosuid", "nodev", "default_permissions"} <= mount.options
    assert ordinary_user.run("cat", f"{mountpoint}/greeting").stdout == "hello\n"
    document = status_of(user=ordinary_user, of=mountpoint)
    opens = {**document["control"]["upcalls"], **(document["datapath"] or {}).get("requests", {})}
    assert opens.get("OPEN", opens.get("open")) == 1
    assert zcfuse("umount", mountpoint, user=ordinary_user).returncode == 0
    assert find_mount(mountpoint, ordinary_user.mountinfo_pid) is None
    assert ended(document["pid"])


def test_hidden_names_are_not_shown(zcfuse, source, mountpoint):
    for name in ("kept", "a.tmp", ".git", "b.bak"):
        with open(os.path.join(source, name), "w") as file:
            file.write(name)
    arguments = ("--hide", "*.tmp", "--hide", ".git", "-o", "hide=*.bak")
    result = zcfuse("mount", *arguments, source, mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    found = subprocess.run(["ls", "-A", mountpoint], capture_output=True, text=True, timeout=20)
    assert set(found.stdout.split()) == set(os.listdir(source)) - {"a.tmp", ".git", "b.bak"}
    assert zcfuse("umount", mountpoint).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hide", "[a"], "--hide: pattern '[a': a [ is not closed"),
        (["--hide", "a//b"], "--hide: pattern 'a//b': each part of it has to be a name"),
        (["--hide", "a", "--rw"], "rw: only a directory can be changed, and all of it"),
        (["--hide", "a", "--engine", "kernel"], "--hide"),
        (["-o", "hide="], "-o hide=: needs a value"),
    ],
)
def test_what_a_filter_cannot_do_is_refused_in_one_line(
    zcfuse, source, mountpoint, arguments, words
):
    result = zcfuse("mount", *arguments, source, mountpoint)
    assert result.returncode != 0
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
