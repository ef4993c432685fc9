"""A change that a daemon made and did not answer, because it was killed: the successor answers."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import eventually, requires
from tests.survive.load import mounted, successor

pytestmark = [requires("mounting", "root", "strace"), pytest.mark.alone]

_CLIENT_S = 60.0
_DELAY_US = 20_000_000
# By name: the daemon's system call, the client's code in the mount, and what the backing tree then
# has, and has no more.
_CHANGES = {
    "mkdir": ("mkdirat", "os.mkdir('new')", "new", "none"),
    "create": ("openat2", "os.close(os.open('new', os.O_CREAT | os.O_EXCL, 0o400))", "new", "none"),
    "mknod": ("mknodat", "os.mknod('new')", "new", "none"),
    "symlink": ("symlinkat", "os.symlink('target', 'new')", "new", "none"),
    "link": ("linkat", "os.link('file', 'new')", "new", "none"),
    "unlink": ("unlinkat", "os.unlink('file')", ".", "file"),
    "rmdir": ("unlinkat", "os.rmdir('directory')", ".", "directory"),
    "rename": ("renameat,renameat2", "os.rename('file', 'new'); os.stat('new')", "new", "file"),
    "replace": ("renameat,renameat2", "os.rename('file', 'other')", ".", "file"),
    "move": (
        "renameat,renameat2",
        "os.rename('directory', 'new'); os.listdir('new')",
        "new",
        "directory",
    ),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_change_that_a_dead_daemon_made_succeeds_for_the_client(change, tmp_path):
    call, code, made, gone = _CHANGES[change]
    backing, where = tmp_path / "backing", tmp_path / "mount"
    for one in (backing, backing / "directory", where):
        one.mkdir()
    for name in ("file", "other"):
        (backing / name).write_text(name)
    log = str(tmp_path / "log")
    with mounted(str(where), [str(backing), "--rw"], log) as entry:
        before = successor(entry, 0)
        daemon = before.processes["datapath"]
        inject = f"inject={call}:delay_exit={_DELAY_US}"
        tracer = subprocess.Popen(
            ["strace", "-f", "-p", str(daemon), "-o", "/dev/null", "-e", inject],
            stderr=subprocess.DEVNULL,
        )
        command = [sys.executable, "-c", f"import os; os.chdir({str(where)!r}); {code}"]
        try:
            assert eventually(lambda: _is_traced(daemon))
            client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert eventually(lambda: _is_made(backing / made, backing / gone))
            assert client.poll() is None
            os.kill(daemon, signal.SIGKILL)
        finally:
            tracer.kill()
            tracer.wait()
        _, error = client.communicate(timeout=_CLIENT_S)
        assert client.returncode == 0, error
        assert _is_made(backing / made, backing / gone)
        assert successor(entry, 1).survival.restarts == 1


def _is_made(made: Path, gone: Path) -> bool:
    return os.path.lexists(made) and not os.path.lexists(gone)


def _is_traced(process: int) -> bool:
    """Whether strace has all threads: any may serve the request."""
    tasks = Path(f"/proc/{process}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in task.read_text() for task in tasks)
