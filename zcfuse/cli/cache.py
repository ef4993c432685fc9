"""``zcfuse cache``: shows and cleans the directory of the bytes that remote mounts fetched."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from zcfuse.cli import _completion
from zcfuse.cli._errors import CommandError, warn
from zcfuse.cli._output import json_option, print_json, print_table, size
from zcfuse.text import escaped

if TYPE_CHECKING:
    from zcfuse.remote import Cache, Kept

_SHORT: Final = 12
_COLUMNS: Final = ("entry", "file", "size", "present", "on disk", "used before")


@click.command()
@click.argument("action", type=click.Choice(["list", "verify", "prune", "remove"]))
@click.argument("entries", metavar="[ENTRY]...", nargs=-1)
@click.option(
    "--cache-dir",
    metavar="DIR",
    shell_complete=_completion.directories,
    help="The cache directory. [default: $XDG_CACHE_HOME/zcfuse/remote or ~/.cache/...]",
)
@click.option("--cache-size", metavar="SIZE", help="With prune: the size or share to cut back to.")
@click.option("--cache-floor", metavar="SIZE", help="With prune: the space to leave free.")
@json_option
def cache(
    action: str,
    entries: tuple[str, ...],
    cache_dir: str | None,
    cache_size: str | None,
    cache_floor: str | None,
    as_json: bool,
) -> int:
    """Show or clean the cache of the files of buckets and servers.

    An ENTRY is a URL, which includes everything below it, or the beginning of an entry's name as
    'list' shows it. Entries that a mount uses are never removed.

    list shows the entries. verify compares their checksums, and has damaged ranges fetched again;
    the exit status is 1 if it finds any. prune removes the entries used least recently. remove
    removes the given entries.
    """
    if action == "remove" and not entries:
        raise click.UsageError("remove: name an ENTRY")
    if action == "prune" and entries:
        raise click.UsageError("prune: takes no ENTRY: it removes the entries used least recently")
    if action != "prune" and (cache_size or cache_floor):
        raise click.UsageError("--cache-size and --cache-floor are for prune")
    opened = _opened(cache_dir, cache_size, cache_floor)
    if action == "prune":
        return _say(as_json, "freed", opened.evict())
    chosen = _chosen(opened, entries)
    if action == "list":
        _show(chosen, as_json)
        return 0
    act = _verify if action == "verify" else _remove
    return act(opened, chosen, as_json)


def _opened(directory: str | None, limit: str | None, floor: str | None) -> Cache:
    from zcfuse.remote import Cache, CacheError, check_limit, default_directory

    path = directory or default_directory()
    if not os.path.isdir(path):
        raise CommandError(f"cache directory {path}: does not exist", usage=True)
    try:
        return Cache(path, check_limit(limit or "20%"), check_limit(floor or "1%"))
    except ValueError as error:
        raise CommandError(str(error), usage=True) from error
    except CacheError as error:
        raise CommandError(str(error.strerror)) from error


def _chosen(opened: Cache, wanted: Sequence[str]) -> list[Kept]:
    found = sorted(opened.entries(), key=lambda kept: (kept.url, -kept.used_s))
    if not wanted:
        return found
    chosen: dict[str, Kept] = {}
    for text in wanted:
        matching = {kept.key: kept for kept in found if _matches(kept, text)}
        if not matching:
            raise CommandError(f"{text}: no such entry: see 'zcfuse cache list'", usage=True)
        chosen.update(matching)
    return list(chosen.values())


def _matches(kept: Kept, text: str) -> bool:
    url = text.rstrip("/")
    if "://" in text:
        return kept.url == url or kept.url.startswith(f"{url}/")
    return kept.key.startswith(text)


def _show(chosen: Sequence[Kept], as_json: bool) -> None:
    if as_json:
        print_json(chosen)
        return
    if not chosen:
        click.echo("no entries")
        return
    rows = []
    for kept in chosen:
        sizes = map(size, (kept.size, kept.present, kept.disk))
        hours = max(time.time() - kept.used_s, 0) / 3600
        rows.append((kept.key[:_SHORT], kept.url, *sizes, f"{hours:.1f} h"))
    print_table("", _COLUMNS, rows)


def _verify(opened: Cache, chosen: Sequence[Kept], as_json: bool) -> int:
    intact = damaged = 0
    for kept in chosen:
        good, bad = opened.verify(kept.key)
        intact, damaged = intact + good, damaged + bad
        if bad:
            warn(f"zcfuse cache: {escaped(kept.url)}: {size(bad)} damaged")
    if as_json:
        print_json({"intact": intact, "damaged": damaged})
    else:
        click.echo(f"{size(intact)} intact, {size(damaged)} damaged")
    return int(damaged > 0)


def _remove(opened: Cache, chosen: Sequence[Kept], as_json: bool) -> int:
    freed, failed = 0, False
    for kept in chosen:
        try:
            freed += opened.remove(kept.key)
        except OSError as error:
            failed = True
            warn(f"zcfuse cache: {escaped(kept.url)}: {error.strerror}")
    _say(as_json, "freed", freed)
    return int(failed)


def _say(as_json: bool, what: str, count: int) -> int:
    if as_json:
        print_json({what: count})
    else:
        click.echo(f"{size(count)} {what}")
    return 0
