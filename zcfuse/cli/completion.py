"""``zcfuse completion``: prints the script that makes a shell complete the commands of zcfuse."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from zcfuse.cli._group import zcfuse

SHELLS: Final = ("bash", "zsh", "fish")


class _Bash(BashComplete):
    """Does not ask bash for its version, because the script may run on another machine."""

    @staticmethod
    def _check_version() -> None:
        return


_CLASSES: Final[dict[str, type[ShellComplete]]] = {
    "bash": _Bash,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, paths and zcfuse mounts.

    For this session: source <(zcfuse completion bash), or zcfuse completion fish | source. For
    all sessions: sudo zcfuse setup.
    """
    click.echo(completion_script(shell), nl=False)


def completion_script(shell: str) -> str:
    """Return the script for one of `SHELLS`. It runs ``zcfuse`` from the PATH for each answer."""
    return _CLASSES[shell](zcfuse, {}, "zcfuse", "_ZCFUSE_COMPLETE").source().lstrip("\n")
