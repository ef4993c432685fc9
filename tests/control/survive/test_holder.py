"""The holder, with daemons that have no mount (`daemon_process.py`)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support import eventually
from zcfuse.datapath import holder_program

_DAEMON = os.path.join(os.path.dirname(__file__), "daemon_process.py")
_DEADLINE_S = 30.0
_STAYS = 100  # looks in a row, each some milliseconds after the one before


class _Held:
    """A holder and the log of its daemons."""

    def __init__(self, log: str) -> None:
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, script: str, pipe: int = -1) -> None:
        plan = os.memfd_create("plan")
        argv = [holder_program(), str(plan), "-1", "foreground"]
        argv += [sys.executable, _DAEMON, script, self._log]
        self.process = subprocess.Popen(
            argv,
            pass_fds=[plan, *([pipe] if pipe >= 0 else [])],
            env={**os.environ, "KEPT_PIPE": str(pipe)},
            start_new_session=True,
        )
        os.close(plan)

    @property
    def holder(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def lines(self) -> list[str]:
        try:
            with open(self._log) as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def served(self) -> list[str]:
        return [line for line in self.lines() if " serves " in line]

    def begun(self) -> list[int]:
        return [int(line.split()[0]) for line in self.lines() if line.endswith(" begins")]

    def wait_served(self, count: int) -> int:
        """Wait until a generation serves; return its process id."""
        _until(lambda: len(self.served()) >= count)
        return int(self.served()[count - 1].split()[1])

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.begun():
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    ours = _DAEMON in file.read()
                if ours:
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass


def _until(condition: Callable[[], bool]) -> None:
    assert eventually(condition, _DEADLINE_S)


def _is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


@pytest.fixture
def held(tmp_path) -> Iterator[_Held]:
    held = _Held(str(tmp_path / "log"))
    yield held
    held.end()


def test_a_successor_gets_what_the_killed_daemon_kept(held):
    held.start("keep,serve,stay:serve,stay")
    os.kill(held.wait_served(1), signal.SIGKILL)
    held.wait_served(2)
    assert "serves {'memory': 'bytes that survive'} after ['SIGKILL']" in held.served()[1]


def test_a_crash_of_code_is_named_by_its_signal(held):
    held.start("keep,serve,crash:serve,stay")
    held.wait_served(2)
    assert held.served()[1].endswith("after ['SIGABRT']")


def test_a_handover_is_named_an_upgrade(held):
    held.start("keep,serve,hand:serve,stay")
    held.wait_served(2)
    assert held.served()[1].endswith("after ['upgrade']")


def test_an_orderly_end_ends_the_holder_and_the_standby(held):
    held.start("keep,serve,wait,end,three")
    held.wait_served(1)
    _until(lambda: len(held.begun()) == 2)
    held.holder.send_signal(signal.SIGTERM)
    assert held.holder.wait(_DEADLINE_S) == 3
    _until(lambda: all(map(_is_gone, held.begun())))


def test_a_first_daemon_that_keeps_nothing_ends_the_holder_with_its_status(held):
    held.start("three")
    assert held.holder.wait(_DEADLINE_S) == 3


def test_a_holder_without_a_successor_lets_its_descriptors_go(held):
    reader, writer = os.pipe()
    held.start("pipe,serve,stay:fail", writer)
    os.close(writer)
    os.kill(held.wait_served(1), signal.SIGKILL)
    assert os.read(reader, 1) == b""  # pytest's own limit bounds it
    assert held.holder.wait(_DEADLINE_S) == 1
    assert len(held.begun()) > 3
    os.close(reader)


def test_a_standby_that_cannot_start_is_tried_again_later_and_ends_nothing(held):
    held.start("keep,serve,stay:-fail")
    serving = held.wait_served(1)
    _until(lambda: len(held.begun()) >= 4)
    assert not _is_gone(serving)
    assert held.holder.poll() is None


def test_a_killed_holder_ends_the_standby(held):
    held.start("keep,serve,stay")
    held.wait_served(1)
    _until(lambda: len(held.begun()) == 2)
    standby = held.begun()[1]
    held.holder.kill()
    held.holder.wait()
    _until(lambda: f"{standby} is not needed" in held.lines() or _is_gone(standby))


def test_what_is_kept_does_not_wake_the_holder(held):
    reader, writer = os.pipe()
    held.start("pipe,serve,stay", writer)
    held.wait_served(1)
    _until(lambda: len(held.begun()) == 2)

    def switches() -> int:
        with open(f"/proc/{held.holder.pid}/status") as file:
            return int(file.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])

    _until_constant(switches)
    before = switches()
    for _ in range(100):
        os.write(writer, b"x")
        os.read(reader, 1)
    os.close(reader)  # the kept end now has an error to poll
    assert switches() == before
    os.close(writer)


def _until_constant(value: Callable[[], int]) -> None:
    """Wait until a value stays: the standby is warm, and the holder waits."""
    seen: list[int] = []

    def stays() -> bool:
        seen.append(value())
        return len(seen) > _STAYS and len(set(seen[-_STAYS:])) == 1

    _until(stays)
