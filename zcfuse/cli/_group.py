"""The ``zcfuse`` group. It knows each command by name and imports its module on first use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Final

import click

from zcfuse.cli._examples import epilog

# name: (where the command is, its line in the list of commands). Importing all commands for
# ``--help`` would take a second.
_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "mount": ("zcfuse.cli.mount:mount", "Show a directory at a mount point."),
    "umount": ("zcfuse.cli.umount:umount", "Unmount a mount, with or without its daemon."),
    "upgrade": (
        "zcfuse.cli.upgrade:upgrade",
        "Have the installed version take a surviving mount over.",
    ),
    "diff": ("zcfuse.cli.changes:diff", "List what clients changed of a union."),
    "commit": (
        "zcfuse.cli.changes:commit",
        "Write what clients changed of a union as a layer.",
    ),
    "reset": ("zcfuse.cli.changes:reset", "Empty the upper layer of a union."),
    "sync": ("zcfuse.cli.sync:sync", "Wait until a mount shows every change made so far."),
    "list": ("zcfuse.cli.list:list_", "List the zcfuse mounts and their daemons."),
    "status": (
        "zcfuse.cli.status:status",
        "Show what a mount negotiated, served and fell back from.",
    ),
    "top": ("zcfuse.cli.top:top", "Show live what a mount is doing."),
    "trace": ("zcfuse.cli.trace:trace", "Show each request that a mount answers."),
    "explain": (
        "zcfuse.cli.explain:explain",
        "Say how a file is served, and why not better.",
    ),
    "freeze": (
        "zcfuse.cli.frozen:freeze",
        "Write a tree into an image that the kernel can serve by itself.",
    ),
    "check": ("zcfuse.cli.frozen:check", "List the files of an image that have changed."),
    "warm": (
        "zcfuse.cli.warm:warm",
        "Read files ahead into the page cache; keep them in memory.",
    ),
    "cache": (
        "zcfuse.cli.cache:cache",
        "Show or clean the cache of the files of buckets and servers.",
    ),
    "copies": ("zcfuse.cli.copies:copies", "Count the copies that each serving path makes."),
    "doctor": (
        "zcfuse.cli.doctor:doctor",
        "Say what this machine offers and what is missing.",
    ),
    "completion": ("zcfuse.cli.completion:completion", "Print the completion script of a shell."),
    "setup": ("zcfuse.cli.setup:setup", "Tell mount(8), systemd, man and the shells about zcfuse."),
    "bench": (
        "zcfuse.cli.bench:bench",
        "Measure a mount against its backing tree and its peers.",
    ),
}

_ALIASES: Final = {"unmount": "umount"}
_FROM_MOUNT: Final = 3


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or return None for an unknown name."""
        found = _COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if found is None:
            return None
        module, _, attribute = found[0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        command.epilog = command.epilog or epilog(_ALIASES.get(cmd_name, cmd_name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. The error for an unknown name suggests the nearest known one."""
        name = args[0]
        if name in _COMMANDS or name in _ALIASES or name.startswith("-"):
            return super().resolve_command(ctx, args)
        close = difflib.get_close_matches(name, _COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "choose one that the help lists"
        raise click.UsageError(f"no command {name!r}: {hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="zcfuse", prog_name="zcfuse")
def zcfuse() -> None:
    """Mount a tree of real files whose bytes never pass through the daemon."""


def is_from_mount(arguments: Sequence[str]) -> bool:
    """Say whether these arguments come from mount.fuse3(8) and not from a user.

    mount(8) runs mount.fuse3(8) where it finds no mount.fuse.zcfuse. mount.fuse3(8) then runs
    ``zcfuse SOURCE MOUNTPOINT -o OPTIONS``.
    """
    return (
        len(arguments) >= _FROM_MOUNT
        and arguments[0] not in _COMMANDS
        and arguments[0] not in _ALIASES
        and arguments[1].startswith("/")
        and arguments[2] == "-o"
    )
