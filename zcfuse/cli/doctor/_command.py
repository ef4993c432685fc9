"""``zcfuse doctor``: what this machine offers, and what to do about what is missing."""

from __future__ import annotations

import click

from zcfuse.cli import _completion
from zcfuse.cli._figures import unmounting_when_ended
from zcfuse.cli._output import json_option, print_cells, print_json
from zcfuse.cli.doctor._checks import Check, State, checks


@click.command()
@click.argument("source", default=".", shell_complete=_completion.directories)
@json_option
def doctor(source: str, as_json: bool) -> int:
    """Say what this machine offers to a mount of SOURCE, and what to do where something is missing.

    Nothing is changed; passthrough is tried out on a mount of its own where that is permitted. The
    exit status is 0 whatever was found.
    """
    with unmounting_when_ended():
        found = checks(source)
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 0


def _print(found: list[Check]) -> None:
    rows = [[check.name, check.state.value, check.found] for check in found]
    print_cells("", ("", "", ""), rows, frozenset({0, 1, 2}))
    remedies = [check for check in found if check.state is not State.OK]
    if not remedies:
        click.echo("\nEverything that zcfuse can use is there.")
        return
    click.echo("\nWhat to do:")
    for check in remedies:
        click.echo(f"- {check.name}: {check.remedy}")
