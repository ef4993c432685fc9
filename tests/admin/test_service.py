"""Messages to a service manager, and watchdog pings, with stand-ins for the mount."""

import os
import socket
import subprocess
import sys

import pytest
import trio

from zcfuse.admin._service import ServiceManager
from zcfuse.cli.mount import _progress
from zcfuse.control._watchdog import keep_watch, state_of_thread

WATCHDOG_S = 0.2


class Listener:
    """A notification socket that receives messages."""

    def __init__(self, path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.address = str(path / "notify")
        self._socket.bind(self.address)

    def take(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages


class FakeMount:
    """A mount whose data path has these threads."""

    def __init__(self, *tids: int, roles: tuple[str, ...] = ("serve",)) -> None:
        pairs = zip(tids, roles * len(tids), strict=False)
        self.threads = [{"tid": tid, "role": role} for tid, role in pairs]

    def statistics(self):
        return {"datapath": {"threads": self.threads}}


class FakeWitness:
    """A witness that answers at once, or never."""

    def __init__(self, *, answers: bool) -> None:
        self._socket, self._other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._answers = answers

    def fileno(self) -> int:
        return self._socket.fileno()

    def ask(self) -> None:
        if self._answers:
            self._other.send(b"!")

    def hear(self) -> None:
        self._socket.recv(1)


@pytest.fixture
def listener(tmp_path):
    return Listener(tmp_path)


async def watch(listener, mount, witness) -> list[str]:
    """The messages in five periods of a watch."""
    with trio.move_on_after(WATCHDOG_S * 2.5):
        await keep_watch(ServiceManager(listener.address, WATCHDOG_S), mount, witness)
    return listener.take()


def test_it_takes_the_variables_away_from_our_children(monkeypatch, listener):
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    service = ServiceManager.of_environment()
    assert service.watchdog == 1.5
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
    service.ready("well\nand good")
    service.status("50%")
    service.stopping("first")
    service.stopping("second")
    assert listener.take() == [
        "READY=1\nSTATUS=well and good",
        "STATUS=50%",
        "STOPPING=1\nSTATUS=first",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "soon")],
)
def test_there_is_no_watchdog_unless_it_is_ours(monkeypatch, listener, name, value):
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv(name, value)
    assert ServiceManager.of_environment().watchdog is None


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_without_an_address_that_is_one_nothing_is_told(monkeypatch, address, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    ServiceManager.of_environment().ready("x")
    assert caplog.records == []


async def test_a_mount_that_is_well_is_pinged_twice_in_the_watchdog_s_time(listener):
    told = await watch(listener, FakeMount(os.getpid()), FakeWitness(answers=True))
    assert set(told) == {"WATCHDOG=1"}
    assert len(told) in (4, 5)


@pytest.mark.parametrize("role", ["serve", "ring", "relay"])
async def test_without_a_thread_that_serves_there_is_no_ping(listener, role):
    mount = FakeMount(1, 1, os.getpid(), roles=(role, role, "notify"))
    (told,) = await watch(listener, mount, FakeWitness(answers=True))
    assert told.startswith("STATUS=no thread of the data path is left (")
    assert role in told


async def test_threads_of_a_ring_that_was_not_to_be_had_are_not_missed(listener):
    mount = FakeMount(1, 1, os.getpid(), os.getpid(), roles=("ring", "read", "serve", "relay"))
    assert set(await watch(listener, mount, FakeWitness(answers=True))) == {"WATCHDOG=1"}


async def test_a_thread_that_is_stopped_ends_the_pings(listener, monkeypatch):
    monkeypatch.setattr("zcfuse.control._watchdog.state_of_thread", lambda _tid: "t")
    told = await watch(listener, FakeMount(1), FakeWitness(answers=True))
    assert told == ["STATUS=a thread of the data path (serve) is stopped"]


async def test_a_mount_that_does_not_answer_ends_the_pings(listener, caplog):
    told = await watch(listener, FakeMount(os.getpid()), FakeWitness(answers=False))
    assert told == ["STATUS=the mount did not answer within 0.05 s"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_disk_that_does_not_answer_is_no_reason_to_end_the_daemon(listener, monkeypatch):
    monkeypatch.setattr("zcfuse.control._watchdog.state_of_thread", lambda _tid: "D")
    told = await watch(listener, FakeMount(os.getpid()), FakeWitness(answers=False))
    assert told.count("STATUS=a backing filesystem does not answer") == 1
    assert told.count("WATCHDOG=1") == len(told) - 1 >= 4


async def test_a_mount_that_answers_again_is_pinged_again(listener):
    mount = FakeMount(1)
    with trio.move_on_after(WATCHDOG_S * 2.5):
        async with trio.open_nursery() as nursery:
            service = ServiceManager(listener.address, WATCHDOG_S)
            nursery.start_soon(keep_watch, service, mount, FakeWitness(answers=True))
            await trio.sleep(WATCHDOG_S)
            assert "WATCHDOG=1" not in listener.take()
            mount.threads.clear()
            await trio.sleep_forever()
    told = listener.take()
    assert "STATUS=the mount answers again" in told
    assert "WATCHDOG=1" in told


async def test_without_a_watchdog_nothing_is_watched(listener):
    with trio.fail_after(5):
        await keep_watch(ServiceManager(listener.address), FakeMount(1), FakeWitness(answers=False))
    assert listener.take() == []


def test_the_states_of_threads():
    assert state_of_thread(os.getpid()) == "R"
    assert state_of_thread(1) == ""


def test_the_witness_ends_with_its_asker(tmp_path):
    code = (
        "import os, select, sys\nfrom zcfuse.control._witness import Witness\n"
        "w = Witness(sys.argv[1])\nfor _ in range(2):\n"
        "    w.ask(); w.ask()\n    assert select.select([w], [], [], 5)[0]; w.hear()\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True); os._exit(0)\n"
    )
    # The witness also holds our end of the pipe: end of file means that both are gone.
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, timeout=20, check=True
    )
    assert len(result.stdout.split()) == 1


def test_a_start_that_takes_long_asks_for_more_time(tmp_path, monkeypatch):
    listener = Listener(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", listener.address)
    monkeypatch.setattr(_progress, "_EXTEND_EVERY_S", -1.0)
    _progress.Progress("indexing").show(1, 2)
    assert listener.take() == ["EXTEND_TIMEOUT_USEC=600000000"]
    assert os.environ["NOTIFY_SOCKET"] == listener.address
