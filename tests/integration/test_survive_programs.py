"""Programs whose mounts survive them: `MountOptions(survive=True)` and `zcfuse.attach`."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import eventually, find_mount, requires
from tests.survive import programs as runs
from tests.survive.client import LEAST_STEPS
from tests.survive.load import zcfuse
from tests.survive.programs import Program, surviving_at
from zcfuse import MountError, MountOptions, is_waiting
from zcfuse.admin.status import StatusError, holder_state, read_status, runtime_directory
from zcfuse.admin.status import find_mount as find_entry
from zcfuse.control.survive import ProgramSurvival, _program, take_from_holder

pytestmark = requires("mounting")

_KILLS = 3
_CLIENT_S = 60.0
_READS = "print(open(where + '/file').read(), flush=True)\n"


class _Client(subprocess.Popen[str]):
    """Python code that runs beside the test, with the mount point as ``where``."""

    def __init__(self, code: str, where: str) -> None:
        super().__init__(
            [sys.executable, "-c", f"import os, sys\nwhere = sys.argv[1]\n{code}", where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.stdout is not None
        return self.stdout.readline().strip()

    def rest(self) -> str:
        output, errors = self.communicate("\n", timeout=_CLIENT_S)
        assert self.returncode == 0, errors
        return output.strip()


@pytest.fixture
def where(mountpoint, source) -> str:
    with open(os.path.join(source, "file"), "w") as file:
        file.write("bytes")
    return str(mountpoint)


@pytest.fixture
def start(where) -> Iterator[Callable[..., Program]]:
    """Start a program with arguments of `Program`."""
    with surviving_at(where) as started:

        def begin(*mounts: str, wait: float = runs.LONG_WAIT_S) -> Program:
            started.append(Program(*mounts, wait=wait))
            return started[-1]

        yield begin


def _read(where: str) -> str:
    return _Client(_READS, where).rest()


def _socket_of_holder(where: str) -> Path:
    directory = os.readlink(f"/proc/self/fd/{(opened := runtime_directory())}")
    os.close(opened)
    major, minor = find_entry(where).device
    return Path(directory, f"{major}-{minor}.holder")


def _waits(where: str) -> bool:
    return eventually(lambda: is_waiting(where))


def _take(where: str, **options: object) -> ProgramSurvival:
    return take_from_holder(where, MountOptions(survive=True, **options))  # type: ignore[arg-type]


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["mirror", "paths"])
def test_clients_notice_nothing_of_killed_programs_but_time(kind):
    report = runs.run(kind, _KILLS)
    assert report.clean(), report.text()
    assert report.done["read"] >= LEAST_STEPS
    assert report.status is not None
    assert report.status.survival is not None
    assert report.status.survival.restarts == _KILLS
    assert [one.cause for one in report.status.survival.last] == ["ended"] * _KILLS


def test_the_end_of_the_block_leaves_the_mount_and_the_same_program_may_attach(
    where, source, start
):
    program = start("mirror", str(source), where)
    assert program.tell("again") == "serves 2"
    assert _read(where) == "bytes"
    survival = read_status(where).survival
    assert survival is not None
    assert (survival.restarts, survival.last[-1].cause) == (0, "left")
    assert program.tell("leave") == "left"
    assert is_waiting(where)


def test_a_file_held_over_the_end_of_the_block_reads_on(where, source, start):
    program = start("paths", str(source), where)
    client = _Client("f = open(where + '/file'); print('open', flush=True); input()\n"
                     "print(f.read(), os.fstat(f.fileno()).st_size)", where)  # fmt: skip
    assert client.line() == "open"
    assert program.tell("again") == "serves 2"
    assert client.rest() == "bytes 5"


def test_a_program_that_becomes_itself_by_exec_takes_over(where, source, start):
    program = start("mirror", str(source), where)
    assert program.tell("exec") == "serves 2"
    assert _read(where) == "bytes"


def test_an_unmount_in_the_program_ends_the_holder(where, source, start):
    program = start("mirror", str(source), where)
    holder = read_status(where).processes["holder"]
    assert program.tell("unmount") == "unmounted"
    assert find_mount(where) is None
    assert program.end() == 0
    assert eventually(lambda: not os.path.exists(f"/proc/{holder}/exe"))


def test_all_mounts_of_a_killed_program_are_taken_over(where, source, start, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    mounts = ("mirror", str(source), where, "paths", str(source), str(other))
    with surviving_at(str(other)):
        start(*mounts).kill()
        assert _waits(where)
        assert _waits(str(other))
        assert start(*mounts).generations == [2, 2]
        assert (_read(where), _read(str(other))) == ("bytes", "bytes")


def test_clients_get_an_error_at_the_end_of_the_wait_and_nothing_stays(where, source, start):
    program = start("mirror", str(source), where, wait=1.0)
    entry = find_entry(where)
    holder = read_status(where).processes["holder"]
    code = "print('began', flush=True)\ntry: os.stat(where + '/file')\n"
    code += "except OSError as error: print(error.errno)\n"
    code += "try: os.stat(where + '/file')\nexcept OSError as error: print(error.errno)"
    program.kill()
    client = _Client(code, where)
    assert client.line() == "began"
    assert client.line() in (
        str(errno.ECONNABORTED),
        str(errno.ENOTCONN),
    )  # it waited, or came later
    assert client.line() == str(errno.ENOTCONN)
    assert eventually(lambda: not os.path.exists(f"/proc/{holder}/exe"))
    assert holder_state(entry) is None
    with pytest.raises(MountError, match="no holder keeps this mount"):
        _take(where)
    zcfuse("umount", where)
    assert find_mount(where) is None


def test_commands_work_while_nobody_serves(where, source, start):
    start("mirror", str(source), where).kill()
    assert _waits(where)
    for command in ("status", "explain"):
        path = where if command == "status" else os.path.join(where, "file")
        result = zcfuse(command, path, check=False)
        assert result.returncode == 1
        assert "waits for a program, 1" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    row = next(line for line in zcfuse("list").stdout.splitlines() if where in line)
    assert row.split()[-1] == "waits"
    holder = holder_state(find_entry(where))
    assert holder is not None
    zcfuse("umount", where)
    assert find_mount(where) is None
    assert eventually(lambda: not os.path.exists(f"/proc/{holder.holder}/exe"))


def test_an_unmount_by_others_ends_the_holder_that_waits(where, source, start):
    start("mirror", str(source), where).kill()
    assert _waits(where)
    holder = holder_state(find_entry(where))
    assert holder is not None
    subprocess.run(["umount", "-l", where], check=True, timeout=_CLIENT_S)
    assert eventually(lambda: not os.path.exists(f"/proc/{holder.holder}/exe"))


def test_a_second_program_is_refused_while_one_serves(where, source, start):
    start("mirror", str(source), where)
    with pytest.raises(MountError, match="a program serves it: end that one first"):
        _take(where)
    assert read_status(where).survival.generation == 1  # type: ignore[union-attr]
    assert _read(where) == "bytes"


def test_a_version_with_another_layout_of_state_is_refused_and_the_mount_waits_on(
    where, source, start, monkeypatch
):
    start("mirror", str(source), where).kill()
    assert _waits(where)
    with monkeypatch.context() as patched:
        patched.setattr(_program, "layout_of_state", lambda: "9.9")
        with pytest.raises(MountError, match="the layout of another version"):
            _take(where)
    assert is_waiting(where)
    assert start("mirror", str(source), where).generations == [2]


def test_options_that_the_kernel_holds_the_mount_to_cannot_change(where, source, start):
    start("mirror", str(source), where).kill()
    assert _waits(where)
    with pytest.raises(MountError, match="immutable is False for this mount"):
        _take(where, immutable=True)
    assert _waits(where)
    start("mirror", str(source), where)
    assert _read(where) == "bytes"


@requires("root")
def test_another_user_may_not_attach(where, source, start):
    start("mirror", str(source), where).kill()
    assert _waits(where)
    code = """
from zcfuse import MountError, MountOptions
from zcfuse.control.survive import take_from_holder
os.setresuid(65534, 65534, 65534)
try: take_from_holder(where, MountOptions(survive=True))
except MountError as error: print(error)
"""
    assert "belongs to user 0: only that user may attach" in _Client(code, where).rest()
    assert is_waiting(where)


def test_an_upgrade_of_a_program_is_refused(where, source, start):
    start("mirror", str(source), where)
    result = zcfuse("upgrade", where, check=False)
    assert result.returncode == 1
    assert "start that program again" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_nodes_that_only_python_knows_go_stale_and_their_paths_work_again(where, source, start):
    program = start("policy", str(source), where)
    code = """
held = os.open(where + "/made", os.O_RDONLY)
print(os.pread(held, 99, 0).decode(), flush=True)
input()
os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
try: print(os.pread(held, 99, 0).decode())
except OSError as error: print(error.errno)
print(open(where + "/made").read())
"""
    client = _Client(code, where)
    assert client.line() == "from Python"
    program.kill()
    start("policy", str(source), where)
    held, again = client.rest().splitlines()
    assert held in (str(errno.ESTALE), str(errno.EBADF))
    assert again == "from Python"


def test_an_edited_tree_shows_its_changes_and_never_other_bytes_of_a_held_file(
    where, source, start
):
    program = start("paths", str(source), where)
    code = """
held = os.open(where + "/file", os.O_RDONLY)
print(os.fstat(held).st_size, flush=True)
input()
try: print(os.pread(held, 99, 0).decode())
except OSError as error: print(error.errno)
print(open(where + "/file").read(), open(where + "/0/new").read())
"""
    client = _Client(code, where)
    assert client.line() == "5"
    program.kill()
    start("edited", str(source), where)
    held, paths = client.rest().splitlines()
    assert held in ("bytes", str(errno.ESTALE))
    assert paths == "bytes new"


@pytest.mark.alone  # another mount may get the number, and its socket the name
def test_a_holder_that_is_killed_ends_the_mount_and_leaves_no_socket(where, source, start):
    start("mirror", str(source), where)
    socket_file = _socket_of_holder(where)
    assert socket_file.exists()
    os.kill(read_status(where).processes["holder"], 9)
    assert eventually(lambda: find_mount(where) is None)
    assert not socket_file.exists()


@pytest.mark.alone
def test_a_command_removes_the_socket_that_a_killed_holder_and_its_program_left(
    where, source, start
):
    program = start("mirror", str(source), where)
    socket_file = _socket_of_holder(where)
    holder = read_status(where).processes["holder"]
    program.process.send_signal(signal.SIGSTOP)  # it shall not see the holder's end
    os.kill(holder, signal.SIGKILL)
    assert eventually(lambda: not os.path.exists(f"/proc/{holder}/exe"))
    program.kill()
    assert socket_file.exists()
    assert zcfuse("umount", "--force", where, check=False).returncode == 0
    assert find_mount(where) is None
    assert not socket_file.exists()


def test_a_mount_is_waiting_as_soon_as_its_program_is_killed(where, source, start):
    program = start("mirror", str(source), where)
    for _ in range(3):
        assert not is_waiting(where)
        program.process.kill()
        assert is_waiting(where)
        program.kill()
        program = start("mirror", str(source), where)


def test_no_mount_is_waiting_where_there_is_none(where):
    assert not is_waiting(where)
    with pytest.raises(MountError, match="not a zcfuse mount"):
        _take(where)
    with pytest.raises(StatusError):
        read_status(where)
