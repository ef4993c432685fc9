"""``zcfuse doctor``: says what this machine offers, and how to add the missing parts."""

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
    """Say what this machine offers to a mount of SOURCE, and how to add the missing parts.

    The command changes nothing. It tries passthrough on a temporary mount if it may mount. The
    exit status is 0, even if parts are missing.
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
        click.echo("\nThis machine has everything that zcfuse can use.")
        return
    click.echo("\nWhat to do:")
    for check in remedies:
        click.echo(f"- {check.name}: {check.remedy}")
