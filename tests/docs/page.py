"""Runs the blocks of one page in a sandbox, from top to bottom, as a reader would.

It compares the output that a page shows. ``...`` matches anything; alone on a line it matches any
number of lines. A command without shown output must succeed; one with output may fail as the page
shows.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from tests.docs.blocks import Block
from tests.support import FuseMount, missing

_PREPARE: Final = os.path.join(os.path.dirname(__file__), "prepare")


class PageError(AssertionError):
    """A block does not do what its page says."""


class System(Protocol):
    """Where the blocks run: a sandbox on this machine, or a system made for the test."""

    def inside(self, text: str) -> str:
        """`text` with what a page names replaced by what stands for it here."""

    def shell(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's shell; status and output."""

    def python(self, text: str) -> tuple[int, str]:
        """Run `text` in the page's interpreter; status and output."""

    def prepare(self, text: str) -> tuple[int, str]:
        """Run `text`, which makes the files that a page assumes; status and output."""

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows."""

    def mounts(self) -> list[FuseMount]:
        """The mounts that the page made."""

    def unmount(self, mounts: list[FuseMount]) -> None:
        """Unmount, by force if necessary."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, and its shown output."""

    text: str
    shown: str


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a console block: after ``$``, with ``>`` for further lines."""
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
    """Whether `output` matches what a page shows, except ``...`` and the width of gaps."""
    pattern = ""
    for line in shown.strip("\n").split("\n"):
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, _squeezed(line).split("..."))) + r"\n"
    return re.fullmatch(pattern, _squeezed(output).strip("\n") + "\n") is not None


def _squeezed(text: str) -> str:
    return "\n".join(re.sub(r"[ \t]+", " ", line).rstrip() for line in text.split("\n"))


class Page:
    """Runs blocks in a sandbox; see `run`."""

    def __init__(self, sandbox: System) -> None:
        self._sandbox = sandbox

    def prepare(self, page: str) -> None:
        """Create the files that the page assumes: ``prepare/PAGE.sh``, with '-' for '/'."""
        name = page.removeprefix("docs/").removesuffix(".md").replace("/", "-")
        path = os.path.join(_PREPARE, f"{name}.sh")
        if os.path.exists(path):
            with open(path) as file:
                status, output = self._sandbox.prepare(file.read())
            if status != 0:
                raise PageError(f"{path} ended with {status}:\n{output}")

    def run(self, block: Block) -> None:
        """Run the block, or write it to its file.

        Raises:
            PageError: it failed, or its output differs from the page.
            HungError: it did not end in time.
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
            # Successive mounts on one mount point are alternatives.
            named = sandbox.inside(command.text).split()
            taken = [mount for mount in before if mount.mountpoint in named]
            sandbox.unmount(taken)
        status, output = sandbox.shell(command.text)
        if command.shown.strip() and not agrees(command.shown, output):
            raise PageError(
                f"{block.where}: $ {command.text}\nshown:\n{command.shown}\nprinted:\n{output}"
            )
        if status != 0 and not command.shown.strip():
            raise PageError(f"{block.where}: $ {command.text}\nended with {status}:\n{output}")
