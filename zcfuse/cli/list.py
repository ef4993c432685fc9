"""``zcfuse list``: lists the mounts in the kernel's table, each with its daemon if it answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import msgspec

from zcfuse.admin.status import StatusError, list_mounts, printable, read_status_of
from zcfuse.cli._kernel_mounts import kernel_mounts
from zcfuse.cli._output import json_option, print_json, print_table
from zcfuse.linux import MountEntry

if TYPE_CHECKING:
    from zcfuse.engine import KernelServed


class _Row(msgspec.Struct):
    mountpoint: str
    source: str
    user: int
    pid: int | None
    path: str | None
    state: str


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the zcfuse mounts and their daemons."""
    rows = [_describe(entry) for entry in list_mounts()]
    rows += [_of_kernel(served) for served in kernel_mounts()]
    if as_json:
        print_json(rows)
    elif rows:
        print_table("", _Row.__struct_fields__, [_cells(row) for row in rows])
    else:
        click.echo("no zcfuse mounts")


def _describe(entry: MountEntry) -> _Row:
    pid, path, state = None, None, "alive"
    try:
        status = read_status_of(entry)
        pid, path = status.pid, str(status.options.get("path"))
    except StatusError as error:
        state = _state(entry, error)
    return _Row(
        printable(entry.mountpoint), printable(entry.source), entry.owner[0], pid, path, state
    )


def _state(entry: MountEntry, error: StatusError) -> str:
    if error.dead or error.waits:
        return "dead" if error.dead else "waits"
    return "not yours" if _is_others(entry) else "no answer"


def _is_others(entry: MountEntry) -> bool:
    """Say whether the mount's daemon answers only another user."""
    return os.geteuid() not in (0, entry.owner[0])


def _of_kernel(served: KernelServed) -> _Row:
    record = served.record
    return _Row(printable(served.entry.mountpoint), record.source, 0, None, "kernel", "alive")


def _cells(row: _Row) -> tuple[str, ...]:
    # Ids are names, not amounts, so the table marks no thousands in them.
    return tuple("-" if cell is None else str(cell) for cell in msgspec.structs.astuple(row))
