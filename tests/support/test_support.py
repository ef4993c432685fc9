"""Tests of the shared support."""

import os
import signal
import subprocess
import sys

import pytest

from tests.support import (
    ClientHungError,
    DaemonError,
    Mounter,
    OrdinaryUser,
    UnknownCapabilityError,
    eventually,
    find_mount,
    missing,
    requires,
)
from tests.support._capabilities import expected

_DEADLINE_S = 60

_RUN = """
import sys, pytest
from tests.support import _capabilities
_capabilities.offers_everything = lambda: {full}
own = ["-p", "no:cacheprovider", "--rootdir", sys.argv[1], "--basetemp", sys.argv[2]]
sys.exit(pytest.main([*own, sys.argv[1]]))
"""


def _run_tests(directory: str, body: str, *, full: bool) -> subprocess.CompletedProcess[str]:
    """Run `body` as a separate test module, with the plugin and an invented machine."""
    with open(os.path.join(directory, "conftest.py"), "w") as file:
        file.write('pytest_plugins = ["tests.support._plugin"]\n')
    with open(os.path.join(directory, "test_it.py"), "w") as file:
        file.write(body)
    # A separate base directory: in the common one it would delete earlier runs' files.
    base = os.path.join(directory, "base")
    command = [sys.executable, "-c", _RUN.format(full=full), directory, base]
    return subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)


def test_an_unknown_capability_is_a_mistake_and_not_a_skip() -> None:
    with pytest.raises(UnknownCapabilityError):
        requires("no such thing")


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("requires passthrough: EPERM", True),
        ("requires root: not root", False),
        ("flaky", False),
        ("requires no such thing: x", False),
    ],
)
def test_only_what_a_full_machine_may_lack_excuses_a_skip(reason: str, verdict: bool) -> None:
    assert expected(reason) is verdict


@pytest.mark.parametrize(
    "body", ["def test(): pytest.skip('x')", "pytest.skip(allow_module_level=True)"]
)
def test_a_skip_fails_the_run_on_a_machine_that_offers_everything(
    tmp_path: os.PathLike[str], body: str
) -> None:
    result = _run_tests(str(tmp_path), f"import pytest\n{body}\n", full=True)
    assert result.returncode != 0
    assert "a skip that is not expected here" in result.stdout


def test_a_skip_is_a_skip_on_a_machine_that_lacks_something(tmp_path: os.PathLike[str]) -> None:
    body = "import pytest\ndef test(): pytest.skip('x')\ndef test_other(): pass\n"
    result = _run_tests(str(tmp_path), body, full=False)
    assert result.returncode == 0
    assert "1 passed, 1 skipped" in result.stdout


@requires("ordinary user")
def test_an_ordinary_user_has_the_device_and_the_interpreter(ordinary_user: OrdinaryUser) -> None:
    code = "import os, trio; os.close(os.open('/dev/fuse', os.O_RDWR)); print(os.geteuid())"
    result = ordinary_user.run(sys.executable, "-c", code)
    assert result.stdout.strip() == str(ordinary_user.uid)
    assert ordinary_user.uid != 0


@requires("ordinary user")
def test_an_ordinary_user_leaves_nothing_behind(ordinary_user: OrdinaryUser) -> None:
    assert missing("ordinary user") == ""
    with open("/proc/self/mountinfo") as file:
        assert "zcfuse-namespace" not in file.read()


def _threads_of(pid: int) -> set[str]:
    """The states of a process's threads."""
    states = set()
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/stat") as file:
            states.add(file.read().rpartition(")")[2].split()[0])
    return states


@requires("mounting")
def test_a_client_that_hangs_fails_its_test_and_leaves_nothing_mounted(
    mounted: Mounter, mountpoint: str
) -> None:
    daemon = mounted()
    daemon.process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: _threads_of(daemon.pid) == {"T"})
    with pytest.raises(ClientHungError, match="state T"):
        daemon.run("ls", mountpoint, timeout=2)
    assert find_mount(mountpoint) is None
    assert daemon.process.poll() is not None


@requires("mounting")
def test_a_daemon_that_cannot_mount_is_reported_with_what_it_wrote(
    mounted: Mounter, tmp_path: os.PathLike[str]
) -> None:
    with pytest.raises(DaemonError, match="no such thing") as caught:
        mounted(source=os.path.join(tmp_path, "no such thing"))
    assert caught.value.status not in (0, None)


@requires("ordinary user")
def test_an_ordinary_user_mounts(mounted: Mounter, ordinary_user: OrdinaryUser) -> None:
    directories = {name: ordinary_user.directory(name) for name in ("source", "mountpoint")}
    daemon = mounted(user=ordinary_user, **directories)
    assert daemon.mount is not None
    assert daemon.run("ls", daemon.mountpoint).stdout == b""
    assert daemon.status()["pid"] == daemon.pid
