"""A data path in another process, which is killed, and its successor, over a socket pair."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.datapath.kernel import IN_HEADER, INIT, ROOT, FakeKernel, Reply
from zcfuse.datapath import Config, DataPath, SurvivingState

RESEND_BIT = 1 << 63
INIT_IN = struct.pack("=5I11I", 7, 45, 131072, 0xFFFF_FFFF, 0xFFFF_FFFF, *[0] * 11)
INIT_OUT = struct.pack("=4I2H2I2H2I12H", 7, 45, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, *[0] * 12)
SERVE = """
import os, sys
from zcfuse.datapath import Config, DataPath, SurvivingState

channel, control, root, *state = (int(fd) for fd in sys.argv[1].split(","))
config = Config()
for setting in sys.argv[2:]:
    name, _, value = setting.partition("=")
    setattr(config, name, type(getattr(config, name))(eval(value)))
state = SurvivingState.attach(state)
path = DataPath(channel, control, config, device=False, state=state)
path.lease_directory(1, root)
path.start()
print("serving", flush=True)
sys.stdin.read()
"""


class Survivor(FakeKernel):
    """The test is the kernel, control and the holder of all descriptors."""

    def __init__(self, tree: Path, **settings: object) -> None:
        self._unique = 0
        self._settings: Mapping[str, object] = {"path": "pool", "threads": 1, **settings}
        self._tree = os.open(tree, os.O_PATH | os.O_DIRECTORY)
        self._state = SurvivingState.create()
        self.fds = [os.dup(fd) for fd in self._state.fds()]
        self.channel, self._served = self._pair()
        self.control, self._asked = self._pair()
        self._path: DataPath | None = None
        self._spawn()

    @property
    def path(self) -> DataPath:  # type: ignore[override]
        assert self._path is not None
        return self._path

    @property
    def state(self) -> SurvivingState:
        return self._state

    def _spawn(self) -> None:
        given = [self._served.fileno(), self._asked.fileno(), self._tree, *self.fds]
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                SERVE,
                ",".join(map(str, given)),
                *(f"{name}={value!r}" for name, value in self._settings.items()),
            ],
            pass_fds=given,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"serving\n"

    def lease(self, tree: Path) -> None:
        """Have the successor lease another directory."""
        os.close(self._tree)
        self._tree = os.open(tree, os.O_PATH | os.O_DIRECTORY)

    def negotiate(self) -> Reply:
        """INIT, which control answers, and the reply that the kernel gets."""
        unique = self.ask(INIT, 0, INIT_IN)
        self.answer(unique, INIT_OUT)
        return self.reply()

    def kill(self) -> None:
        self._child.send_signal(signal.SIGKILL)
        self._child.communicate(timeout=30)
        assert self._child.returncode == -signal.SIGKILL

    def take_over(self) -> DataPath:
        """Serve in this process from now on, on new sockets to control."""
        self.control.close()
        self._asked.close()
        self.control, asked = self._pair()
        config = Config()
        for name, value in self._settings.items():
            setattr(config, name, value)
        self._state = SurvivingState.attach(self.fds)
        self._path = DataPath(
            os.dup(self._served.fileno()), asked.detach(), config, device=False, state=self._state
        )
        self._path.lease_directory(ROOT, self._tree)
        self._path.start()
        return self._path

    def kill_successor(self) -> None:
        """Let go of the data path in this process; what it recorded stays."""
        assert self._path is not None
        self._path.stop()
        self._path = None

    def succeed(self) -> DataPath:
        self.kill()
        return self.take_over()

    def again(self, opcode: int, nodeid: int, body: bytes, unique: int) -> Reply:
        """The same request again, as the kernel sends it after a RESEND."""
        length = IN_HEADER.size + len(body)
        header = IN_HEADER.pack(length, opcode, unique | RESEND_BIT, nodeid, 0, 0, 1, 0, 0)
        self.channel.sendall(header + body)
        reply = self.reply()
        assert reply.unique == unique | RESEND_BIT
        return reply

    def close(self) -> None:
        if self._child.poll() is None:
            self.kill()
        if self._path is not None:
            self._path.stop()
        for end in (self.channel, self.control, self._served, self._asked):
            with contextlib.suppress(OSError):
                end.close()
        for fd in (self._tree, *self.fds):
            os.close(fd)
