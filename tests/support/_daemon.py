"""The daemon as a child process, and clients of its mount as children with a time-out.

The test process never touches a mountpoint: a daemon that stops answering would hang the whole run.
If a client hangs, the test dumps the stacks of client and daemon, aborts the connection and fails.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import msgspec

from tests.support._forked import ForkedProcess, fork_zcfuse
from tests.support._kernel import FuseMount, abort, detach, find_mount, stacks
from tests.support._user import CHECKOUT, OrdinaryUser
from tests.support._waiting import eventually
from zcfuse.admin.status import read_status

MOUNT_DEADLINE_S: Final = 20.0
UNMOUNT_DEADLINE_S: Final = 20.0
CLIENT_DEADLINE_S: Final = 20.0


class DaemonError(AssertionError):
    """The daemon ended before it mounted, or with an error."""

    def __init__(self, what: str, status: int | None, log: str) -> None:
        super().__init__(f"{what}; the daemon wrote:\n{log or '(nothing)'}")
        self.status = status
        self.log = log


class ClientHungError(AssertionError):
    """A client of the mount did not return; the message has the stacks."""


class Daemon:
    """``zcfuse mount SOURCE MOUNTPOINT --foreground`` as a separate process.

    Owns the process and, until it ends, the mount. `env` adds to the environment. With an empty
    `source` the options select the tree. `under` is a wrapper command, such as prlimit. With one
    of them, with another user or without `forked` the process is a new interpreter; otherwise the
    fork server starts it, and /proc shows the command line of the server.
    """

    def __init__(
        self,
        source: str,
        mountpoint: str,
        *options: str,
        log: str,
        env: Mapping[str, str] | None = None,
        user: OrdinaryUser | None = None,
        under: Sequence[str] = (),
        forked: bool = True,
    ) -> None:
        self.source = source
        self.mountpoint = os.path.realpath(mountpoint)
        self.user = user
        self._log_path = log
        self._must_succeed = True
        arguments = ["mount", *filter(None, [source]), mountpoint, "--foreground", *options]
        with open(log, "wb") as file:
            if forked and env is None and user is None and not under:
                self.process: ForkedProcess | subprocess.Popen[bytes] = fork_zcfuse(
                    arguments,
                    output=file.fileno(),
                    environment=_environment(None),
                    directory=CHECKOUT,
                )
            else:
                self.process = subprocess.Popen(
                    [*under, *self._wrap([sys.executable, "-m", "zcfuse", *arguments])],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=CHECKOUT,
                    env=_environment(env),
                    start_new_session=True,
                )
        try:
            self._wait_until_mounted()
        except BaseException:
            self._end_by_force()
            raise

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.process.pid

    @property
    def mount(self) -> FuseMount | None:
        """The mount in the kernel's table; None if gone."""
        return find_mount(self.mountpoint, self._mountinfo_pid)

    def path(self, *names: str) -> str:
        """The path of a file in the mount."""
        return os.path.join(self.mountpoint, *names)

    def log(self) -> str:
        """The daemon's output and errors so far."""
        with open(self._log_path, errors="replace") as file:
            return file.read()

    def status(self) -> dict[str, Any]:
        """The status document, as ``zcfuse status --json`` prints it."""
        if self.user is None:
            answer: dict[str, Any] = json.loads(msgspec.json.encode(read_status(self.mountpoint)))
            return answer
        result = self.run(sys.executable, "-m", "zcfuse", "status", "--json", self.mountpoint)
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def run(
        self,
        *argv: str,
        timeout: float = CLIENT_DEADLINE_S,
        check: bool = True,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a client to its end, as the mount's user.

        Raises:
            AssertionError: it failed, and `check` is true.
            ClientHungError: it did not end within `timeout` seconds; the mount is then aborted.
        """
        client = subprocess.Popen(
            self._wrap(list(argv)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
            env=_environment(env),
            start_new_session=True,
        )
        try:
            output, errors = client.communicate(stdin, timeout)
        except subprocess.TimeoutExpired:
            self._give_up_on(client, f"{argv!r} was not back after {timeout} s")
        result = subprocess.CompletedProcess(argv, client.returncode, output, errors)
        if check and result.returncode != 0:
            message = errors.decode(errors="replace").strip()
            raise AssertionError(f"{argv!r} ended with {result.returncode}: {message}")
        return result

    def python(
        self, code: str, *arguments: str, timeout: float = CLIENT_DEADLINE_S, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run Python code as a client; `arguments` are its ``sys.argv[1:]``."""
        return self.run(sys.executable, "-c", code, *arguments, timeout=timeout, check=check)

    def wait(self, timeout: float = UNMOUNT_DEADLINE_S) -> int:
        """Wait for the daemon to end, and return its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            dump = stacks(self.pid)
            self._end_by_force()
            what = f"the daemon was still there after {timeout} s:\n{dump}\n"
            raise DaemonError(what, None, self.log()) from None

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Kill the daemon and return its exit status.

        From here on its failure is expected, and the end removes a remaining mount.
        """
        self._must_succeed = False
        self.process.send_signal(number)
        return self.wait()

    def fails(self) -> int:
        """Wait for the daemon to fail by itself, and return its exit status.

        The end removes a remaining mount.
        """
        self._must_succeed = False
        return self.wait()

    def unmount(self) -> None:
        """End the daemon by SIGTERM; require exit status 0 and no mount. A second call does
        nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.wait()
        left = self.mount
        if left is not None:
            abort(left)
            self._detach()
        if not self._must_succeed:
            return
        if status != 0:
            raise DaemonError(f"the daemon ended with {status}", status, self.log())
        if left is not None:
            raise DaemonError(f"the daemon left {left} mounted", status, self.log())

    @property
    def _mountinfo_pid(self) -> int | str:
        return "self" if self.user is None else self.user.mountinfo_pid

    def _wrap(self, argv: list[str]) -> list[str]:
        return argv if self.user is None else self.user.command(argv)

    def _detach(self) -> None:
        detach(self.mountpoint, None if self.user is None else self.user.command)

    def _wait_until_mounted(self) -> None:
        def is_mounted() -> bool:
            if self.mount is None and self.process.poll() is not None:
                status = self.process.returncode
                raise DaemonError(f"no mount: ended with {status}", status, self.log())
            return self.mount is not None

        if not eventually(is_mounted, MOUNT_DEADLINE_S):
            what = f"no mount after {MOUNT_DEADLINE_S} s:\n{stacks(self.pid)}\n"
            raise DaemonError(what, None, self.log())
        # A mount may exist before it answers; the first request shows that it does.
        self.run("stat", "--format=%i", self.mountpoint, timeout=MOUNT_DEADLINE_S)

    def _give_up_on(self, client: subprocess.Popen[bytes], what: str) -> NoReturn:
        dump = f"client:\n{stacks(client.pid)}\ndaemon:\n{stacks(self.pid)}"
        self._must_succeed = False
        self._end_by_force()
        # The group, because a client may be a shell with children.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.communicate(timeout=5)
        raise ClientHungError(f"{what}\n{dump}\nthe daemon wrote:\n{self.log()}")

    def _end_by_force(self) -> None:
        """End the connection, the process and the mount."""
        mount = self.mount
        if mount is not None and not abort(mount):
            self._detach()
        if self.process.poll() is None:
            # PYTHONFAULTHANDLER writes the Python stacks of every thread on its way out.
            self.process.send_signal(signal.SIGABRT)
            self.process.send_signal(signal.SIGCONT)  # a stopped process handles no other signal
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(5)
        if self.mount is not None:
            self._detach()


# The fixture `mounted`: options as positional arguments, keywords as in `_plugin.mounted`.
Mounter = Callable[..., Daemon]


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    own = {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": CHECKOUT, "NO_COLOR": "1"}
    return {**os.environ, **own, **(added or {})}
