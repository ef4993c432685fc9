"""The holder of programs, with peers that have no mount: they speak its messages alone."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support import eventually, requires
from zcfuse.control.survive import HolderRefusedError, Link, Takeover
from zcfuse.datapath import holder_program

_NOBODY = 65534
_ANSWER_S = 30.0


class _Holder:
    """A holder whose first program is this process; it listens at an address without a file."""

    def __init__(self, wait_ms: int, program: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("")  # the kernel chooses a free address
        self.address = self._listener.getsockname()
        self._listener.listen(1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            subprocess.run(
                [program, "program", str(theirs.fileno()), str(wait_ms)],
                pass_fds=[theirs.fileno()],
                check=True,
            )
        self.first, self.channel = Link(ours), ours
        ours.settimeout(_ANSWER_S)

    def begin(self, kept: int) -> None:
        """Mount, as far as the holder knows, and have it keep a descriptor."""
        taken(self.first)
        self.first.keep("kept", kept)
        self.first.listen(self._listener, self._listener.fileno(), "none")
        self.first.serving()

    def connect(self) -> Link:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.settimeout(_ANSWER_S)
        channel.connect(self.address)
        return Link(channel)


def taken(link: Link, layout: str = "1") -> Takeover:
    link.warm(layout)
    takeover = link.wait_takeover()
    assert takeover is not None
    return takeover


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: its reading end sees the end of the holder, once the test has closed the other."""
    ends = os.pipe()
    yield ends
    os.close(ends[0])


@pytest.fixture
def begin(pipe) -> Callable[..., _Holder]:
    def started(wait_ms: int = 60_000) -> _Holder:
        holder = _Holder(wait_ms, holder_program())
        holder.begin(pipe[1])
        os.close(pipe[1])
        return holder

    return started


def _has_let_go(reader: int) -> bool:
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False


def test_the_next_program_gets_what_the_first_one_kept(begin):
    holder = begin()
    holder.first.close()
    takeover = taken(holder.connect())
    assert list(takeover.descriptors) == ["kept"]
    assert (takeover.generation, takeover.deaths) == (2, 1)
    assert [one.cause for one in takeover.handovers] == ["ended"]


def test_a_program_that_hands_over_has_left_and_did_not_die(begin):
    holder = begin()
    holder.first.handing_over()
    holder.first.close()
    takeover = taken(holder.connect())
    assert ([one.cause for one in takeover.handovers], takeover.deaths) == (["left"], 0)


def test_a_program_is_refused_while_another_one_serves(begin):
    holder = begin()
    with pytest.raises(HolderRefusedError, match="serves"):
        taken(holder.connect())


def test_a_program_with_another_layout_is_refused_and_the_next_one_is_not(begin):
    holder = begin()
    holder.first.close()
    with pytest.raises(HolderRefusedError, match="layout"):
        taken(holder.connect(), "2")
    assert taken(holder.connect()).generation == 2


def test_the_descriptors_go_at_the_end_of_the_wait(begin, pipe):
    holder = begin(wait_ms=50)
    assert not _has_let_go(pipe[0])
    holder.first.close()
    assert eventually(lambda: _has_let_go(pipe[0]))


def test_the_descriptors_go_with_a_program_that_ends_the_mount(begin, pipe):
    holder = begin()
    holder.first.ending()
    holder.first.close()
    assert eventually(lambda: _has_let_go(pipe[0]))


def test_a_program_that_took_over_and_never_answered_lets_the_wait_run_on(begin, pipe):
    holder = begin(wait_ms=300)
    holder.first.close()
    second = holder.connect()
    for descriptor in taken(second).descriptors.values():
        os.close(descriptor)
    second.close()
    assert eventually(lambda: _has_let_go(pipe[0]))


def test_a_holder_whose_first_program_keeps_nothing_ends_with_it():
    holder = _Holder(60_000, holder_program())
    taken(holder.first)
    reader, writer = os.pipe()
    holder.first.keep("kept", writer)
    os.close(writer)
    holder.first.close()
    assert eventually(lambda: _has_let_go(reader))
    os.close(reader)


@requires("root")
def test_a_program_of_another_user_is_refused(begin):
    holder = begin()
    holder.first.close()
    code = f"import os, socket, sys\nos.setresuid({_NOBODY}, {_NOBODY}, {_NOBODY})\n"
    code += "channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
    code += "channel.connect('\\0' + sys.argv[1])\nprint(channel.recv(99)[8:].strip(b'\\0'))"
    other = subprocess.run(
        [sys.executable, "-c", code, holder.address[1:]],
        capture_output=True,
        text=True,
        timeout=_ANSWER_S,
    )
    assert other.stdout == "b'user'\n", other.stderr
    assert taken(holder.connect()).generation == 2
