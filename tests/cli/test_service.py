"""`zcfuse mount --foreground` as a service: readiness, watchdog, its end, and the unit for it."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import run_zcfuse
from tests.cli.service import DEADLINE_S, Manager, manager
from tests.support import MOUNT_FUSECTL, eventually, find_mount, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

WATCHDOG_S = 0.8
UNIT = os.path.join(CHECKOUT, "zcfuse/share/systemd/zcfuse@.service")
# Replaces parts of the daemon's code; a lookup of the name "wedge" blocks it.
TRIO_WEDGES = """
import threading
from zcfuse.fuse._operations import Operations
lookup = Operations.lookup
async def wedged(self, parent, name, context):
    if name == b"wedge":
        threading.Event().wait(600)
    return await lookup(self, parent, name, context)
Operations.lookup = wedged
"""
MOUNT_IS_DEAF = """
import os, trio
from zcfuse.fuse._operations import Operations
statfs, asked = Operations.statfs, []
async def deaf(self, context):
    asked.append(1)
    if len(asked) > 3:
        await trio.sleep_forever()
    return await statfs(self, context)
Operations.statfs = deaf
"""


@pytest.fixture
def told(tmp_path):
    with manager(str(tmp_path / "notify")) as listening:
        listening.environment["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1e6))
        yield listening


@pytest.fixture
def altered(source, mountpoint, told: Manager):
    """Runs a daemon altered by `code`, and kills it at the end."""
    daemons = []

    def start(code: str, *options: str) -> subprocess.Popen[bytes]:
        main = "from zcfuse.cli import main; main()"
        argv = ["mount", "--foreground", *options, source, mountpoint]
        daemon = subprocess.Popen(
            [sys.executable, "-c", code + main, *argv],
            cwd=CHECKOUT,
            env={**os.environ, **told.environment},
            stderr=subprocess.DEVNULL,
        )
        daemons.append(daemon)
        told.until("READY")
        return daemon

    yield start
    for daemon in daemons:
        daemon.kill()
        daemon.wait(DEADLINE_S)
    run_zcfuse("umount", "--if-dead", mountpoint)
    assert find_mount(os.path.realpath(mountpoint)) is None


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_told_once_and_when_the_mount_answers(mounted, tmp_path, abstract):
    address = f"@zcfuse-tests-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with manager(address) as told:
        daemon = mounted(env=told.environment)
        message = told.until("READY")
        assert message["READY"] == "1"
        assert daemon.source in message["STATUS"]
        assert daemon.mountpoint in message["STATUS"]
        daemon.run("stat", "--file-system", daemon.mountpoint)
        daemon.unmount()
        told.until("STOPPING")
    assert [set(message) for message in told.messages] == [
        {"READY", "STATUS"},
        {"STOPPING", "STATUS"},
    ]


@pytest.mark.parametrize("path", ["naive", "auto"])
def test_the_watchdog_is_pinged_until_a_signal_ends_the_mount(mounted, told, path):
    daemon = mounted("--path", path, env=told.environment)
    for _ in range(4):
        assert told.until("WATCHDOG")["WATCHDOG"] == "1"
    daemon.process.send_signal(signal.SIGTERM)
    told.until("STOPPING")
    assert daemon.wait() == 0
    assert not [message for message in told.messages if "answer" in message.get("STATUS", "")]


def test_another_process_s_watchdog_is_not_ours(mounted, told):
    mounted(env={**told.environment, "WATCHDOG_PID": "1"})
    told.until("READY")
    assert told.silent_for(2 * WATCHDOG_S, "WATCHDOG")


@requires("root", "private mounts")
def test_an_abort_ends_the_pings_and_the_exit_status_tells(mounted, told):
    daemon = mounted(env=told.environment)
    told.until("WATCHDOG")
    # fusectl may be unmounted in the initial namespace.
    script = f"{MOUNT_FUSECTL} && echo 1 >/sys/fs/fuse/connections/$0/abort"
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    subprocess.run([*private, str(daemon.mount.connection)], check=True, timeout=DEADLINE_S)
    assert daemon.fails() == 1
    told.until("STOPPING")
    assert told.silent_for(0, "WATCHDOG")


def test_a_trio_loop_that_stands_still_ends_the_pings(altered, told, mountpoint):
    altered(TRIO_WEDGES, "--no-directory-lease")
    told.until("WATCHDOG")
    client = subprocess.Popen(["stat", f"{mountpoint}/wedge"], stderr=subprocess.DEVNULL)
    try:
        told.silent_for(WATCHDOG_S, "nothing")
        assert told.silent_for(3 * WATCHDOG_S, "WATCHDOG")
    finally:
        client.kill()


def test_a_mount_that_does_not_answer_ends_the_pings_although_trio_runs(altered, told):
    altered(MOUNT_IS_DEAF, "--path", "naive")
    told.until("WATCHDOG")
    status = told.until("STATUS")["STATUS"]
    assert "did not answer" in status
    assert told.silent_for(3 * WATCHDOG_S, "WATCHDOG")


def test_what_the_watchdog_s_signal_leaves_is_cleaned_up_for_the_next(altered, told, mountpoint):
    daemon = altered("")
    assert run_zcfuse("umount", "--if-dead", mountpoint).returncode == 0
    assert find_mount(os.path.realpath(mountpoint)) is not None
    daemon.send_signal(signal.SIGABRT)
    assert daemon.wait(DEADLINE_S) == -signal.SIGABRT
    assert find_mount(os.path.realpath(mountpoint)) is not None
    result = run_zcfuse("umount", "--if-dead", mountpoint)
    assert (result.returncode, result.stderr) == (0, "")
    assert find_mount(os.path.realpath(mountpoint)) is None
    result = run_zcfuse("umount", "--if-dead", mountpoint)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_daemon_in_the_background_tells_the_manager_of_its_caller_nothing(
    zcfuse, source, mountpoint, told
):
    assert zcfuse("mount", source, mountpoint, env=told.environment).returncode == 0
    assert zcfuse("umount", mountpoint, env=told.environment).returncode == 0
    assert told.next(0) is None


@requires("systemd-analyze")
def test_the_unit_is_one_that_systemd_understands(tmp_path, commands):
    copy = tmp_path / "zcfuse@.service"
    with open(UNIT) as file:
        # It lacks only the command, which `zcfuse setup` fills in.
        copy.write_text(re.sub("=(-?)zcfuse ", rf"=\1{commands}/zcfuse ", file.read()))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    ours = [line for line in result.stderr.splitlines() if "zcfuse" in line]
    assert ours == []


def test_the_unit_hides_neither_the_mount_nor_a_call_that_the_daemon_needs():
    with open(UNIT) as file:
        settings = {line.split("=")[0] for line in file if re.match(r"\w+=", line)}
    # exec_needs_mount_namespace() of systemd: each of these would hide the mount.
    hiding = "(Protect|Private|Read|Inaccessible|Bind|TemporaryFile|Root|Mount|Exec.*Paths|NoExec)"
    assert [name for name in settings if re.match(hiding, name)] == []
    assert "RestrictSUIDSGID" not in settings  # it blocks openat2(2), so no lease
    assert {"Type", "NotifyAccess", "WatchdogSec", "Restart", "LimitMEMLOCK"} <= settings


def test_the_unit_starts_within_a_finite_time():
    with open(UNIT) as file:
        limit = re.search(r"^TimeoutStartSec=(\w+)$", file.read(), re.MULTILINE)
    assert limit is not None
    assert 0 < int(limit[1]) <= 3600


def test_the_command_of_the_unit_serves_what_its_file_says(source, mountpoint, told):
    values = {"SOURCE": source, "MOUNTPOINT": mountpoint, "OPTIONS": "path=pool,threads=1"}
    with open(UNIT) as file:
        line = next(line for line in file if line.startswith("ExecStart="))
    words = line.strip().split("=", 1)[1].split(" ")[1:]
    argv = [re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], word) for word in words]
    daemon = subprocess.Popen(
        [sys.executable, "-m", "zcfuse", *argv],
        cwd=CHECKOUT,
        env={**os.environ, **told.environment},
    )
    try:
        told.until("READY")
        assert find_mount(os.path.realpath(mountpoint)).source == source
    finally:
        daemon.terminate()
        assert daemon.wait(DEADLINE_S) == 0
    told.until("STOPPING")


def test_time_passes_for_nobody_without_a_manager(mounted):
    daemon = mounted(env={"NOTIFY_SOCKET": "/nowhere/notify"})
    assert eventually(lambda: "the service manager did not get READY=1: " in daemon.log())
