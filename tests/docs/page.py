"""Runs the blocks of one page in a sandbox, from top to bottom, as a reader would.

The directories that the pages speak of (``/data``, ``/mnt``, ...) are in the sandbox: their names
are exchanged in what is run, and back in what it printed. Output that a page shows is compared;
``...`` stands for anything, on a line of its own for any number of lines. A command without shown
output must succeed, one with it may fail as the page shows.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.docs.blocks import Block
from tests.docs.interpreters import Interpreter
from tests.support import FuseMount, abort, fuse_mounts, missing
from tests.support._kernel import detach
from tests.support._user import CHECKOUT

_COMMAND_S: Final = 40.0
_POLL_S: Final = 0.02
# What pages use outside of the reader's home. A name of the machine's own is never exchanged.
_OURS: Final = re.compile(r"(?<![\w./~-])/(data|mnt|shards|srv|layers)(?![\w.-])")
_PREPARE: Final = os.path.join(os.path.dirname(__file__), "prepare")
# Where pages have a server listen.
_ADDRESS: Final = "127.0.0.1:8080"
_WIDTH: Final = "100"


class PageError(AssertionError):
    """A block does not do what its page says."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and the output that is shown for it."""

    text: str
    shown: str


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a console block: after ``$``, ``>`` for the lines that go on."""
    command: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Command("\n".join(command), "\n".join(shown))
            command, shown = [line[2:]], []
        elif line.startswith("> ") and command and not shown:
            command.append(line[2:])
        else:
            shown.append(line)
    if not command:
        raise PageError("a console block without a line that begins with '$ '")
    yield Command("\n".join(command), "\n".join(shown))


def agrees(shown: str, output: str) -> bool:
    """Whether `output` is what a page shows, but for ``...`` and the width of gaps."""
    pattern = ""
    for line in shown.strip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, _squeezed(line).split("..."))) + r"\n"
    return re.fullmatch(pattern, _squeezed(output).strip("\n") + "\n") is not None


def _squeezed(text: str) -> str:
    return "\n".join(re.sub(r"[ \t]+", " ", line).rstrip() for line in text.split("\n"))


class Sandbox:
    """A home, the directories that pages name, and what runs in them."""

    def __init__(self, directory: str) -> None:
        self.root = os.path.realpath(directory)
        self.home = os.path.join(self.root, "home", "you")
        self._number = 0
        self._port = _free_port()
        self._shell: Interpreter | None = None
        self._python: Interpreter | None = None
        self._make()

    def _make(self) -> None:
        for name in ("home/you", "data", "mnt/zc", "shards", "srv", "layers", "bin", "scripts"):
            os.makedirs(os.path.join(self.root, name))
        program = f'export PYTHONPATH={CHECKOUT}\nexec {sys.executable} -m zcfuse "$@"\n'
        self._program("zcfuse", program)
        self._program("python", f'exec env PYTHONPATH={CHECKOUT} {sys.executable} "$@"\n')
        self._program("sudo", 'exec "$@"\n')
        os.symlink(os.path.join(CHECKOUT, "examples"), os.path.join(self.home, "examples"))

    def _program(self, name: str, text: str) -> None:
        path = os.path.join(self.root, "bin", name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}")
        os.chmod(path, 0o755)

    def environment(self) -> dict[str, str]:
        """That of a reader who has configured nothing, on a terminal of a fixed width."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "PYTHON"))}
        path = os.path.join(self.root, "bin") + ":" + os.environ["PATH"]
        ours = {"PATH": path, "HOME": self.home, "COLUMNS": _WIDTH, "NO_COLOR": "1"}
        return {**kept, **ours, "LC_ALL": "C.UTF-8", "CHECKOUT": CHECKOUT, "ROOT": self.root}

    def inside(self, text: str) -> str:
        """`text` with the pages' directories in the sandbox."""
        text = text.replace(_ADDRESS, f"127.0.0.1:{self._port}")
        return _OURS.sub(lambda found: f"{self.root}{found[0]}", text)

    def outside(self, text: str) -> str:
        """`text` with them where the page has them."""
        return text.replace(self.root, "")

    def shell(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's shell; status and output."""
        if self._shell is None:
            self._shell = Interpreter.bash(self.home, self.environment())
        return self._run(self._shell, text)

    def python(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's interpreter, in one namespace."""
        if self._python is None:
            environment = {**self.environment(), "PYTHONPATH": CHECKOUT}
            self._python = Interpreter.python(self.home, environment)
        return self._run(self._python, text)

    def _run(self, interpreter: Interpreter, text: str) -> tuple[int, str]:
        self._number += 1
        script = os.path.join(self.root, "scripts", str(self._number))
        with open(script, "w") as file:
            file.write(self.inside(text) + "\n")
        status, output = interpreter.run(script, _COMMAND_S)
        return status, self.outside(output)

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows; a relative name is in the home."""
        path = os.path.join(self.home, self.inside(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(self.inside(text))

    def mounts(self) -> list[FuseMount]:
        """Our mounts in the sandbox."""
        return [one for one in fuse_mounts() if one.mountpoint.startswith(self.root + "/")]

    def unmount(self, mounts: list[FuseMount]) -> None:
        """Unmount, by force where it has to be."""
        for mount in mounts:
            argv = [os.path.join(self.root, "bin", "zcfuse"), "umount", mount.mountpoint]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(argv, capture_output=True, timeout=_COMMAND_S, check=False)
        for mount in self.mounts():
            if mount in mounts:
                abort(mount)
                detach(mount.mountpoint)

    def close(self) -> None:
        """End everything that the page began."""
        self.unmount(self.mounts())
        for interpreter in (self._shell, self._python):
            if interpreter is not None:
                interpreter.close()
        self.unmount(self.mounts())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Page:
    """Runs blocks in a sandbox; see `run`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def prepare(self, page: str) -> None:
        """Make the files that a reader of the page has: ``prepare/PAGE.sh``, with '-' for '/'."""
        name = page.removeprefix("docs/").removesuffix(".md").replace("/", "-")
        path = os.path.join(_PREPARE, f"{name}.sh")
        if os.path.exists(path):
            with open(path) as file:
                status, output = self._sandbox.shell(file.read())
            if status != 0:
                raise PageError(f"{path} ended with {status}:\n{output}")

    def run(self, block: Block) -> None:
        """Do what becomes of the block.

        Raises:
            PageError: it failed, or printed something else than the page shows.
            HungError: it did not come back.
        """
        if block.not_run or any(map(missing, block.needs)):
            return
        if block.title:
            self._sandbox.write(block.title, block.text)
        elif block.language == "console":
            for command in commands(block.text):
                self._run_command(block, command)
        elif block.language == "python":
            status, output = self._sandbox.python(block.text)
            if status != 0:
                raise PageError(f"{block.where}: ended with {status}:\n{output}")

    def _run_command(self, block: Block, command: Command) -> None:
        sandbox = self._sandbox
        before = sandbox.mounts()
        if command.text.startswith("zcfuse mount "):
            # Mounts that a page shows one below the other are alternatives.
            mountpoint = sandbox.inside(command.text.split()[-1])
            taken = [mount for mount in before if mount.mountpoint == mountpoint]
            sandbox.unmount(taken)
        status, output = sandbox.shell(command.text)
        if command.text.endswith("&"):
            self._wait_for_mount(block, before)
        if command.shown.strip() and not agrees(command.shown, output):
            raise PageError(
                f"{block.where}: $ {command.text}\nshown:\n{command.shown}\nprinted:\n{output}"
            )
        if status != 0 and not command.shown.strip():
            raise PageError(f"{block.where}: $ {command.text}\nended with {status}:\n{output}")

    def _wait_for_mount(self, block: Block, before: list[FuseMount]) -> None:
        # A reader takes longer to type the next command than a program takes to mount.
        deadline = time.monotonic() + _COMMAND_S
        while len(self._sandbox.mounts()) <= len(before):
            if time.monotonic() > deadline:
                raise PageError(f"{block.where}: nothing was mounted in the background")
            time.sleep(_POLL_S)
