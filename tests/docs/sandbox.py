"""A sandbox for the blocks of a page: a home, and the directories that pages name.

The directories in the pages (``/data``, ``/mnt``, ...) live in the sandbox. It replaces their names
in commands, and replaces them back in output.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from tests.docs.interpreters import Interpreter
from tests.support import FuseMount, abort, fuse_mounts
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

COMMAND_S: Final = 40.0
# Directories that pages use outside the reader's home. Names of the real machine stay.
_OURS: Final = re.compile(r"(?<![\w./~-])/(data|mnt|shards|srv|layers)(?![\w.-])")
# Addresses of servers in pages.
_ADDRESS: Final = re.compile(r"127\.0\.0\.1:(8080|9464)")
# The commands that pip installs, and their modules.
_COMMANDS: Final = {"zcfuse": "zcfuse.cli", "mount.fuse.zcfuse": "zcfuse.cli.mount.helper"}
_CLOSED: Final = re.compile(r"^zcfuse: .*: closed to other users, .*\n", re.MULTILINE)
_WIDTH: Final = "100"
# $1: a directory for written files. /sbin may be a separate directory.
_SYSTEM: Final = """
set -eu
for lower in /etc /usr /sbin; do
    [ -L "$lower" ] && continue
    upper=$1/upper$lower work=$1/work$lower
    mkdir -p "$upper" "$work"
    mount -t overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" page "$lower"
done
echo ready
exec cat
"""


class Sandbox:
    """A home, the directories that pages name, and the processes in them.

    `system` adds a mount namespace that root may change: files written to /etc and /usr stay in the
    sandbox.
    """

    def __init__(self, directory: str, *, system: bool = False) -> None:
        self.root = os.path.realpath(directory)
        self.home = os.path.join(self.root, "home", "you")
        self._number = 0
        self._port = _free_port()
        self._ends = contextlib.ExitStack()
        self._interpreters: dict[str, Interpreter] = {}
        self._make()
        self._enter: list[str] = []
        self._pid: int | str = "self"
        if system:
            self._pid = self._ends.enter_context(_namespace(self._directory("system")))
            self._enter = ["nsenter", f"--mount=/proc/{self._pid}/ns/mnt", f"--wdns={self.home}"]

    def _directory(self, name: str) -> str:
        path = os.path.join(self.root, name)
        os.makedirs(path)
        return path

    def _make(self) -> None:
        for name in ("home/you", "data", "mnt/zc", "shards", "srv", "layers", "bin", "scripts"):
            self._directory(name)
        for name, module in _COMMANDS.items():
            code = f"import sys; from {module} import main; sys.argv[0] = sys.argv.pop(1); main()"
            line = f"PYTHONPATH={CHECKOUT} exec {sys.executable} -c '{code}'"
            self._program(name, f'{line} "$0" "$@"\n')
        self._program("python", f'exec env PYTHONPATH={CHECKOUT} {sys.executable} "$@"\n')
        # sudo does not search the reader's virtual environment; `zcfuse setup` has put zcfuse where
        # it does search.
        self._program("sudo", 'case $1 in python|python3|pip) exit 1;; esac; exec "$@"\n')
        os.symlink(os.path.join(CHECKOUT, "examples"), os.path.join(self.home, "examples"))

    def _program(self, name: str, text: str) -> None:
        path = os.path.join(self.root, "bin", name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}")
        os.chmod(path, 0o755)

    def environment(self) -> dict[str, str]:
        """The environment of a reader without configuration, on a terminal of fixed width."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "PYTHON"))}
        path = os.path.join(self.root, "bin") + ":" + os.environ["PATH"]
        ours = {"PATH": path, "HOME": self.home, "COLUMNS": _WIDTH, "NO_COLOR": "1"}
        return {**kept, **ours, "LC_ALL": "C.UTF-8", "CHECKOUT": CHECKOUT, "ROOT": self.root}

    def inside(self, text: str) -> str:
        """`text` with the pages' directories replaced by the sandbox's."""
        text = _ADDRESS.sub(f"127.0.0.1:{self._port}", text)
        return _OURS.sub(lambda found: f"{self.root}{found[0]}", text)

    def outside(self, text: str) -> str:
        """`text` with the sandbox's directories replaced by the pages'.

        Without the warning of `zcfuse setup` about a closed home: the tests' interpreter may lie in
        one, a reader's installation does not.
        """
        return _CLOSED.sub("", text.replace(self.root, ""))

    def shell(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's shell; status and output."""
        return self._run("bash", text)

    def prepare(self, text: str) -> tuple[int, str]:
        """Run `text`, which makes the files that the page assumes; status and output."""
        return self.shell(text)

    def python(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's interpreter, in one namespace."""
        return self._run("python", text)

    def _run(self, language: str, text: str) -> tuple[int, str]:
        if language not in self._interpreters:
            began = Interpreter(language, self.home, self.environment(), self._enter)
            self._interpreters[language] = began
        self._number += 1
        script = os.path.join(self.root, "scripts", str(self._number))
        with open(script, "w") as file:
            file.write(self.inside(text) + "\n")
        status, output = self._interpreters[language].run(script, COMMAND_S)
        return status, self.outside(output)

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows; relative names are in the home."""
        path = os.path.join(self.home, self.inside(name))
        if path.startswith(self.root + "/"):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(self.inside(text))
            return
        assert self._enter, f"{name}: would be written to the machine itself"
        argv = [*self._enter, "install", "-D", "--mode=644", "/dev/stdin", path]
        subprocess.run(argv, input=self.inside(text), text=True, timeout=COMMAND_S, check=True)

    def mounts(self) -> list[FuseMount]:
        """Our mounts in the sandbox."""
        found = fuse_mounts(self._pid)
        return [one for one in found if one.mountpoint.startswith(self.root + "/")]

    def unmount(self, mounts: list[FuseMount]) -> None:
        """Unmount, by force if necessary."""
        program = os.path.join(self.root, "bin", "zcfuse")
        for mount in mounts:
            argv = [*self._enter, program, "umount", mount.mountpoint]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(argv, capture_output=True, timeout=COMMAND_S, check=False)
        for mount in self.mounts():
            if mount in mounts:
                abort(mount)
                detach(mount.mountpoint, self._wrap if self._enter else None)

    def _wrap(self, argv: list[str]) -> list[str]:
        return [*self._enter, *argv]

    def close(self) -> None:
        """End everything that the page started."""
        self.unmount(self.mounts())
        for interpreter in self._interpreters.values():
            interpreter.close()
        self.unmount(self.mounts())
        self._ends.close()


@contextlib.contextmanager
def _namespace(directory: str) -> Iterator[int]:
    """A process that holds the namespace during the context."""
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SYSTEM, "sh", directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder.pid
    finally:
        holder.communicate(timeout=COMMAND_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
