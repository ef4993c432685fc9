"""A change that a daemon made and did not answer, because it was killed: the successor answers."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import eventually, requires
from tests.survive.load import mounted, successor

pytestmark = requires("mounting", "root", "strace")

_CLIENT_S = 60.0
_DELAY_US = 20_000_000
_RENAMES = "renameat,renameat2"  # glibc's renameat2 makes the first one where no flag is set
_CREATE = "os.close(os.open({!r}, os.O_CREAT | os.O_EXCL, 0o400))"
_COPY = """
held = os.open('file', 0)
number = os.stat('file').st_ino
{}
for found in (os.stat('file'), os.fstat(held)):
    assert found.st_ino == number and (found.st_mode & 0o777 == 0o640 or found.st_mtime == 1)
assert os.pread(held, 9, 0) == open('file', 'rb').read() == b'file'
"""
_MOST_NAMELESS = 1024
_BEYOND = 3
# The first ones are kept, so those that fail are the last ones.
_NAMELESS = """
import resource
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for number in range({files}):
    held.append(os.open(str(number), os.O_CREAT | os.O_RDWR))
    os.unlink(str(number))
print("open", flush=True)
input()
errors = []
for number, file in enumerate(held):
    try:
        os.pwrite(file, b"bytes", 0)
        assert os.pread(file, 9, 0) == b"bytes"
    except OSError as error:
        errors.append(error.errno)
        assert number >= {files} - 3
print(errors, flush=True)
"""
_REMOVED_COPY = """
held = os.open("file", os.O_RDONLY)
os.chmod("file", 0o640)
os.unlink("file")
print("open", flush=True)
input()
os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
print(os.pread(held, 9, 0), os.fstat(held).st_nlink, flush=True)
"""
_HELD = """
held = os.open('old/file', 0)
os.fchmod(held, 0o640)
assert os.fstat(held).st_mode & 0o777 == 0o640 and os.pread(held, 9, 0) == b'bytes'
"""
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
    "rename": (_RENAMES, "os.rename('file', 'new'); os.stat('new')", "new", "file"),
    "replace": (_RENAMES, "os.rename('file', 'other')", ".", "file"),
    "move": (
        _RENAMES,
        "os.rename('directory', 'new'); os.listdir('new')",
        "new",
        "directory",
    ),
}
# The same of a union. The upper layer has the directory `pure`, the file `top`, a copy of `both`,
# and whiteouts of the file `covered` and of the directory `hidden`.
_UNION_CHANGES = {
    "copy": ("linkat", _COPY.format("os.chmod('file', 0o640)"), "file", "none"),
    "metacopy": ("linkat", _COPY.format("os.utime('file', (1, 1))"), "file", "none"),
    "mkdir": ("mkdirat", "os.mkdir('new'); assert not os.listdir('new')", "new", "none"),
    "mkdir_over_whiteout": (
        _RENAMES,
        "os.mkdir('hidden'); assert not os.listdir('hidden')",
        "hidden",
        "none",
    ),
    "create": ("openat2", _CREATE.format("new"), "new", "none"),
    "create_over_whiteout": (_RENAMES, _CREATE.format("covered"), "covered", "none"),
    "symlink": ("symlinkat", "os.symlink('target', 'new')", "new", "none"),
    "link": ("linkat", "os.link('top', 'new')", "new", "none"),
    "link_over_whiteout": (_RENAMES, "os.link('top', 'covered')", "covered", "none"),
    "unlink_lower": ("mknodat", "os.unlink('file')", ".", "file"),
    "unlink_copy": (_RENAMES, "os.unlink('both')", ".", "both"),
    "unlink_upper": ("unlinkat", "os.unlink('top')", ".", "top"),
    "rmdir": ("unlinkat", "os.rmdir('pure')", ".", "pure"),
    "rename": (_RENAMES, "os.rename('file', 'new'); os.stat('new')", "new", "file"),
    "rename_over_whiteout": (_RENAMES, "os.rename('file', 'covered')", "covered", "file"),
    "replace": (_RENAMES, "os.rename('file', 'other')", ".", "file"),
    "move": (
        _RENAMES,
        "os.rename('both_directories', 'new'); assert os.listdir('new') == ['inner']",
        "new",
        "both_directories",
    ),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_a_change_that_a_dead_daemon_made_succeeds_for_the_client(change, tmp_path):
    backing = tmp_path / "backing"
    (backing / "directory").mkdir(parents=True)
    for name in ("file", "other"):
        (backing / name).write_text(name)
    _check(_CHANGES[change], tmp_path, [backing], [str(backing), "--rw"])


@pytest.mark.parametrize("change", _UNION_CHANGES)
def test_a_change_of_a_union_that_a_dead_daemon_made_succeeds_for_the_client(change, tmp_path):
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for one in (lower / "hidden", lower / "both_directories", upper / "both_directories"):
        one.mkdir(parents=True)
    (upper / "pure").mkdir()
    for name in ("file", "other", "both", "covered", "hidden/inner", "both_directories/inner"):
        (lower / name).write_text(name)
    for name in ("top", "both"):
        (upper / name).write_text(name)
    for name in ("covered", "hidden"):
        os.mknod(upper / name, stat.S_IFCHR)
    options = ["--metacopy", "--redirect-dir"] if change in ("metacopy", "move") else []
    arguments = ["--layer", str(lower), "--upper", str(upper), *options]
    _check(_UNION_CHANGES[change], tmp_path, [upper, lower], arguments)
    if change == "mkdir":
        assert os.getxattr(upper / "new", "trusted.overlay.opaque") == b"y"


def test_a_copy_that_was_begun_below_a_directory_as_it_moved_is_made_by_the_successor(tmp_path):
    lower, upper, where = (tmp_path / name for name in ("lower", "upper", "mount"))
    (lower / "old").mkdir(parents=True)
    (lower / "old" / "file").write_text("bytes")
    (upper / "old").mkdir(parents=True)
    where.mkdir()
    arguments = ["--layer", str(lower), "--upper", str(upper), "--redirect-dir"]
    clients = []
    with mounted(str(where), arguments, str(tmp_path / "log")) as entry:
        daemon = successor(entry, 0).processes["datapath"]
        # The copy stays before its name, and the move behind its system call.
        delays = {"fsync": "delay_enter", "renameat2": "delay_exit"}
        with _delayed(daemon, delays, tmp_path / "trace"):
            for code, is_reached in (
                (_HELD, lambda: "fsync(" in (tmp_path / "trace").read_text()),
                ("os.rename('old', 'new')", (upper / "new").exists),
            ):
                clients.append(_client(where, code))
                assert eventually(is_reached)
            os.kill(daemon, signal.SIGKILL)
        for client in clients:
            _, error = client.communicate(timeout=_CLIENT_S)
            assert client.returncode == 0, error
        assert stat.S_IMODE((upper / "new" / "file").stat().st_mode) == 0o640
        assert successor(entry, 1).survival.restarts == 1


def test_files_without_a_name_beyond_the_limit_go_stale_and_are_counted(tmp_path):
    backing = tmp_path / "backing"
    backing.mkdir()
    code = _NAMELESS.format(files=_MOST_NAMELESS + _BEYOND)
    before, answer = _over_a_kill(tmp_path, [str(backing), "--rw"], code)
    assert before.datapath["fallbacks"]["nameless_not_kept"] == _BEYOND
    assert answer == str([errno.ESTALE] * _BEYOND)


def test_a_file_that_was_open_before_its_copy_reads_on_without_a_name(tmp_path):
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    lower.mkdir()
    upper.mkdir()
    (lower / "file").write_text("bytes")
    _, answer = _over_a_kill(
        tmp_path, ["--layer", str(lower), "--upper", str(upper)], _REMOVED_COPY
    )
    assert answer == "b'bytes' 0"


def _over_a_kill(tmp_path, arguments, code):
    """Kill the daemon between two lines of a client; return the status before, and the second."""
    where = tmp_path / "mount"
    where.mkdir()
    with mounted(str(where), [*arguments, "--path", "pool"], str(tmp_path / "log")) as entry:
        client = subprocess.Popen(
            [sys.executable, "-c", f"import os; os.chdir({str(where)!r})\n{code}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            assert client.stdout.readline() == "open\n"
            before = successor(entry, 0)
            os.kill(before.processes["datapath"], signal.SIGKILL)
            successor(entry, 1)
            client.stdin.write("\n")
            client.stdin.flush()
            return before, client.stdout.readline().strip()
        finally:
            client.kill()
            client.communicate()


def _check(change, tmp_path, layers, arguments):
    call, code, made, gone = change
    where = tmp_path / "mount"
    where.mkdir()
    with mounted(str(where), arguments, str(tmp_path / "log")) as entry:
        before = successor(entry, 0)
        daemon = before.processes["datapath"]
        with _delayed(daemon, dict.fromkeys(call.split(","), "delay_exit"), tmp_path / "trace"):
            client = _client(where, code)
            assert eventually(lambda: _is_made(layers, made, gone))
            assert client.poll() is None
            os.kill(daemon, signal.SIGKILL)
        _, error = client.communicate(timeout=_CLIENT_S)
        assert client.returncode == 0, error
        assert _is_made(layers, made, gone)
        assert successor(entry, 1).survival.restarts == 1


@contextmanager
def _delayed(process: int, delays: dict[str, str], trace: Path) -> Iterator[None]:
    """Have strace(1) delay system calls, each where `delays` says; it writes those to `trace`."""
    injections = [f"inject={call}:{at}={_DELAY_US}" for call, at in delays.items()]
    options = [word for one in (f"trace={','.join(delays)}", *injections) for word in ("-e", one)]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(process), "-o", str(trace), *options],
        stderr=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: _is_traced(process))
        yield
    finally:
        tracer.kill()
        tracer.wait()


def _client(where: Path, code: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"import os; os.chdir({str(where)!r}); {code}"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _is_made(layers: list[Path], made: str, gone: str) -> bool:
    has_copy = made in ("file", "covered", "hidden")
    return _shows(layers[:1] if has_copy else layers, made) and not _shows(layers, gone)


def _shows(layers: list[Path], name: str) -> bool:
    for layer in layers:
        try:
            found = (layer / name).lstat()
        except FileNotFoundError:
            continue
        return not stat.S_ISCHR(found.st_mode)
    return False


def _is_traced(process: int) -> bool:
    """Whether strace has all threads: any may serve the request."""
    for task in Path(f"/proc/{process}/task").glob("*/status"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            if "TracerPid:\t0\n" in task.read_text():
                return False
    return True
