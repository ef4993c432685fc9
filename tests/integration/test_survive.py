"""A mount with ``--survive``: what clients notice of the death of its daemon."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.conftest import kernel_mount
from tests.support import abort, eventually, find_mount, requires
from tests.survive import deaths
from tests.survive.client import LEAST_STEPS
from tests.survive.load import Report, run, successor, zcfuse
from zcfuse.admin.status import StatusDocument, read_status
from zcfuse.admin.status import find_mount as find_entry
from zcfuse.linux import MountEntry

pytestmark = requires("mounting")

_COMMAND_S = 60.0
_KILLS = 4
_WRITABLE_UNIONS = ("upper-pool", "upper-marks")

# Code that every Python of a mount runs at its start, from a directory in PYTHONPATH.
_OTHER_LAYOUT = """
import sys
if "zcfuse.cli.mount.generation" in sys.orig_argv:
    import zcfuse.datapath
    class Later(zcfuse.datapath.SurvivingState):
        LAYOUT = "9.9"
    zcfuse.datapath.SurvivingState = Later
"""
_KILLER = """
import os, signal
import zcfuse

class Killer(zcfuse.Dir):
    async def lookup(self, name, who):
        if name == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        return zcfuse.Bytes(b"bytes") if name == "good" else None

tree = Killer()
"""


class _Survivor:
    """A mount with ``--survive``, in the background."""

    def __init__(self, entry: MountEntry) -> None:
        self.entry = entry
        self.where = entry.mountpoint

    def status(self) -> StatusDocument:
        return read_status(self.where)

    def kill(self, part: str = "datapath") -> StatusDocument:
        """Kill a process; return the status of the daemon after it."""
        before = self.status()
        assert before.survival is not None
        os.kill(before.processes[part], signal.SIGKILL)
        return successor(self.entry, before.survival.generation)

    def client(self, code: str) -> str:
        """Run code with the mount point as ``where``; return what it prints."""
        result = subprocess.run(
            [sys.executable, "-c", f"import os, sys\nwhere = sys.argv[1]\n{code}", self.where],
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()


def _are_gone(document: StatusDocument) -> bool:
    return not any(os.path.exists(f"/proc/{pid}/exe") for pid in document.processes.values())


@contextmanager
def _surviving(source: str, mountpoint: str, log: str, *options: str) -> Iterator[_Survivor]:
    zcfuse("mount", source, mountpoint, "--survive", "--log-file", log, *options)
    document = read_status(mountpoint)
    try:
        yield _Survivor(find_entry(mountpoint))
    finally:
        left = find_mount(os.path.realpath(mountpoint))
        if left is not None:
            document = read_status(mountpoint)
            result = zcfuse("umount", "--force", mountpoint, check=False)
            if result.returncode != 0:
                abort(left)
                subprocess.run(["umount", "-l", mountpoint], check=False)
        assert eventually(lambda: _are_gone(document))


@pytest.fixture
def survivor(source, mountpoint, tmp_path) -> Iterator[_Survivor]:
    with open(os.path.join(source, "file"), "w") as file:
        file.write("bytes")
    with _surviving(str(source), str(mountpoint), str(tmp_path / "log")) as mounted:
        yield mounted


def _run(kind: str) -> Report:
    report = run(kind, _KILLS)
    assert report.clean(), report.text()
    assert report.kills == _KILLS
    assert report.status is not None
    assert report.status.survival is not None
    assert report.status.survival.restarts == _KILLS
    return report


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["mirror", "union", "archive", "manifest", "image", "immutable"])
def test_clients_notice_nothing_of_kills_but_time(kind):
    assert _run(kind).done["read"] >= LEAST_STEPS


@pytest.mark.alone
@pytest.mark.parametrize(
    "kind",
    [
        "writable",
        "writable-pool",
        "upper-pool",
        pytest.param("upper-marks", marks=requires("root")),
    ],
)
def test_writers_notice_nothing_of_kills_but_time(kind):
    done = _run(kind).done
    assert min(done["rename over"], done["append"], done["chmod"]) > 0
    assert kind not in _WRITABLE_UNIONS or done["chmod copied"] > 0


@pytest.mark.alone
@requires("strace")
@pytest.mark.parametrize("kind", ["writable", "writable-pool", *_WRITABLE_UNIONS])
def test_a_change_whose_answer_a_dead_daemon_owes_is_made_once(kind):
    report = run(kind, _KILLS, by="answer", seed=1)
    assert report.clean(), report.text()
    assert report.done["rename over"] > 0


@pytest.mark.alone
@requires("strace")
def test_clients_notice_nothing_of_deaths_at_system_calls():
    report = run("mirror", _KILLS, by="inject", seed=1)
    assert report.clean(), report.text()
    assert report.done["read"] >= LEAST_STEPS


@pytest.mark.alone
@requires("root", "memory cgroup")
def test_clients_notice_nothing_while_the_kernel_kills_for_memory():
    report = run("mirror", 2, by="starve")
    assert report.clean(), report.text()
    assert report.done["read"] >= LEAST_STEPS


@pytest.mark.alone
def test_clients_wait_for_a_stopped_daemon(monkeypatch):
    monkeypatch.setattr(deaths, "STOPPED_S", 2.0)
    report = run("mirror", 1, by="freeze")
    assert report.clean(), report.text()
    assert max(report.stalls) > 1


def test_an_upgrade_to_another_layout_of_state_is_refused_and_the_daemon_goes_on(
    source, mountpoint, tmp_path, monkeypatch
):
    later = tmp_path / "later"
    later.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(later))
    with _surviving(str(source), str(mountpoint), str(tmp_path / "log")) as survivor:
        before = survivor.status()
        (later / "sitecustomize.py").write_text(_OTHER_LAYOUT)
        result = zcfuse("upgrade", survivor.where, check=False)
        assert result.returncode == 1
        assert "another layout of state (9.9, not " in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert survivor.status().pid == before.pid
        (later / "sitecustomize.py").unlink()
        zcfuse("upgrade", survivor.where)
        after = survivor.status()
        assert after.survival is not None
        assert (after.survival.generation, after.survival.restarts) == (2, 0)


@requires("root")
def test_a_full_disk_under_the_log_delays_no_successor(source, mountpoint, tmp_path):
    with open(os.path.join(source, "file"), "w") as file:
        file.write("bytes")
    room = tmp_path / "room"
    room.mkdir()
    with (
        kernel_mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(room)),
        _surviving(str(source), str(mountpoint), str(room / "log")) as survivor,
    ):
        fill = ["dd", "if=/dev/zero", f"of={room}/rest", "bs=4096"]
        assert b"No space" in subprocess.run(fill, capture_output=True, timeout=60).stderr
        survivor.kill()
        assert survivor.client("print(open(where + '/file').read())") == "bytes"


def test_the_transport_and_the_end_of_the_daemon_are_explained(survivor):
    output = zcfuse("explain", os.path.join(survivor.where, "file")).stdout
    assert "/dev/fuse: io_uring would end with the daemon" in output
    assert "a successor continues" in output


def test_the_status_names_the_cause_of_a_restart(survivor):
    found = survivor.kill()
    assert found.survival is not None
    assert (found.survival.generation, found.survival.restarts) == (2, 1)
    assert [one.cause for one in found.survival.last] == ["SIGKILL"]
    with open(f"/proc/{found.pid}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    assert found.processes["holder"] == parent


def test_an_upgrade_hands_over_without_a_restart(survivor):
    before = survivor.status()
    output = zcfuse("upgrade", survivor.where).stdout
    after = survivor.status()
    assert "generation 2" in output
    assert after.pid != before.pid
    assert after.survival is not None
    assert (after.survival.restarts, after.survival.last[-1].cause) == (0, "upgrade")
    assert survivor.client("print(open(where + '/file').read())") == "bytes"


def test_an_upgrade_of_a_mount_that_ends_with_its_daemon_is_refused(mounted):
    daemon = mounted()
    result = zcfuse("upgrade", daemon.mountpoint, check=False)
    assert result.returncode == 1
    assert "mount it with --survive" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_unmount_ends_the_holder_and_the_standby(survivor):
    document = survivor.status()
    zcfuse("umount", survivor.where)
    assert find_mount(survivor.where) is None
    assert eventually(lambda: _are_gone(document))


def test_sigterm_to_the_holder_unmounts(survivor):
    document = survivor.status()
    os.kill(document.processes["holder"], signal.SIGTERM)
    assert eventually(lambda: find_mount(survivor.where) is None)
    assert eventually(lambda: _are_gone(document))


def test_without_its_holder_the_daemon_unmounts_and_ends(survivor):
    document = survivor.status()
    os.kill(document.processes["holder"], signal.SIGKILL)
    assert eventually(lambda: find_mount(survivor.where) is None)
    assert eventually(lambda: _are_gone(document))


def test_a_request_that_kills_three_daemons_gets_eio(mountpoint, tmp_path):
    program = tmp_path / "killer.py"
    program.write_text(_KILLER)
    log = tmp_path / "log"
    with _surviving(f"{program}:tree", str(mountpoint), str(log)) as mounted:
        code = "try: os.stat(where + '/killer')\nexcept OSError as error: print(error.errno)"
        assert mounted.client(code) == "5"
        found = successor(mounted.entry, 3)
        assert found.survival is not None
        assert found.survival.restarts == 3
        assert found.datapath is not None
        assert found.datapath["fallbacks"]["killed_daemons"] == 1
        assert mounted.client("print(open(where + '/good').read())") == "bytes"
    assert "died 3 times in a row during LOOKUP of node 1" in log.read_text()


@pytest.mark.parametrize(
    "options",
    [("--transport", "uring"), ("--path", "upcall")],
    ids=lambda options: options[-1],
)
def test_options_that_break_the_promise_are_refused(options, source, mountpoint):
    result = zcfuse("mount", str(source), str(mountpoint), "--survive", *options, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert find_mount(str(mountpoint)) is None


def test_a_writable_pool_is_refused(source, mountpoint, tmp_path):
    program = tmp_path / "pool.py"
    program.write_text(f"import zcfuse\ntree = zcfuse.Pool([{str(source)!r}])\n")
    given = (f"{program}:tree", str(mountpoint), "--survive", "--rw")
    result = zcfuse("mount", *given, check=False)
    assert result.returncode == 2
    assert result.stderr.endswith("leave rw or survive out\n")
    assert len(result.stderr.splitlines()) == 1
    assert find_mount(str(mountpoint)) is None


def test_a_mount_that_fails_leaves_no_process(source, mountpoint, tmp_path):
    with _surviving(str(source), str(mountpoint), str(tmp_path / "log")):
        result = zcfuse("mount", str(source), str(mountpoint), "--survive", check=False)
        assert result.returncode == 1
        assert "busy" in result.stderr
