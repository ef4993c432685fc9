"""Going to the background, with stand-ins for the daemon."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support import eventually

# Forking needs a process without threads, so each case is a separate program.
PROGRAM = """
import os, signal, sys, time
from zcfuse.control import _background as background
from zcfuse.control._background import MountError, run_in_background

def dies(ready): os.kill(os.getpid(), signal.SIGKILL)
def refuses(ready): raise MountError("no /dev/null: buy one", usage=True)
def fails(ready): raise RuntimeError("boom\\nbang")
def hangs(ready): signal.pause()
def works(ready):
    began = time.monotonic()
    while time.monotonic() - began < 1.5: pass
    ready(); signal.pause()
def spins(ready):
    while True: pass
def exits(ready): sys.exit(7)
def serves(ready):
    ready()
    print("hidden")
    os.write(2, b"hidden too")
    signal.pause()
def ignores_term(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready(); signal.pause()

def unanswered(): raise MountError("mounted, but silent")

background.READY_TIMEOUT_S = 0.5
background._END_TIMEOUT_S = 0.5
background._MOST_TIMEOUTS = 12
check = unanswered if "unanswered" in sys.argv else lambda: None
try:
    pid = run_in_background(globals()[sys.argv[1]], check, error_output=None)
except MountError as error:
    print(error.usage, error)
else:
    print(pid)
"""


def run(*arguments):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stderr) == (0, ""), result
    return result.stdout.rstrip("\n")


def test_the_parent_returns_when_the_daemon_is_ready_and_sees_none_of_its_output():
    pid = int(run("serves"))

    def has_ended():
        try:
            with open(f"/proc/{pid}/stat") as file:
                return ") Z" in file.read()
        except FileNotFoundError:
            return True

    assert not has_ended()
    os.kill(pid, signal.SIGTERM)
    assert eventually(has_ended)


@pytest.mark.parametrize(
    ("daemon", "message"),
    [
        ("refuses", "True no /dev/null: buy one"),
        ("dies", "False the daemon was killed by SIGKILL before the mount was ready"),
        ("fails", "False the daemon failed: RuntimeError('boom\\nbang')"),
        ("exits", "False the daemon failed: SystemExit(7)"),
        ("hangs", "False the mount was not ready within 0.5 s: try --foreground to see why"),
        ("spins", "False the mount was not ready within 6 s: try --foreground to see why"),
    ],
)
def test_a_daemon_that_never_gets_ready_is_an_error_of_one_line(daemon, message):
    assert run(daemon) == message


def test_a_daemon_that_is_at_work_is_waited_for_longer():
    os.kill(int(run("works")), signal.SIGKILL)


@pytest.mark.parametrize("daemon", ["serves", "ignores_term"])
def test_a_mount_that_does_not_answer_ends_its_daemon(daemon):
    began = time.monotonic()
    assert run(daemon, "unanswered") == "False mounted, but silent"
    assert time.monotonic() - began < 10


def test_an_interrupt_while_waiting_ends_the_daemon(tmp_path):
    pids = tmp_path / "pid"
    program = (
        "import os, signal\n"
        "from zcfuse.control._background import run_in_background\n"
        "def daemon(ready):\n"
        f"    open({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "    signal.pause()\n"
        "run_in_background(daemon, lambda: None, error_output=None)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    assert eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    assert not os.path.exists(f"/proc/{int(pids.read_text())}")
