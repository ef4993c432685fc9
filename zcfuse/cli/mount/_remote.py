"""A URL as the source of ``zcfuse mount``: its options, and its tree."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zcfuse.cli._errors import CommandError
from zcfuse.linux import hide_in_arguments
from zcfuse.options import MountOptions
from zcfuse.remote import MissingDriverError, check_driver, check_limit, shown_url

if TYPE_CHECKING:
    from zcfuse.tree import Tree


_OURS: Final = frozenset(
    {"cache_dir", "cache_size", "cache_floor", "cache_timeout", "immutable", "connections"}
    | {"deadline", "url"}
)


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """The options that only a URL has; `driver` are texts KEY=VALUE, and may hold credentials."""

    driver: tuple[str, ...] = ()
    cache_dir: str | None = None
    cache_size: str | None = None
    cache_floor: str | None = None
    connections: int | None = None
    deadline: float | None = None


NO_OPTIONS: Final = RemoteOptions()


def hide_secrets(urls: Sequence[str], given: RemoteOptions) -> None:
    """Overwrite possible secrets in the command line that ps(1) shows."""
    secrets = [text.partition("=")[2] for text in given.driver]
    secrets += [url for url in urls if url != shown_url(url)]
    if secrets:
        hide_in_arguments(secrets)


def shown_remote(url: str) -> str:
    """Return the name of the source, for the mount table and the status."""
    return shown_url(url)


def check_url(url: str) -> None:
    """Raise CommandError if the driver of a URL is missing."""
    try:
        check_driver(url)
    except (MissingDriverError, ValueError) as error:
        raise CommandError(str(error), usage=True) from error


def remote_maker(given: RemoteOptions, options: MountOptions) -> Callable[[str], Tree]:
    """Return a function that makes the tree of a URL, in the daemon.

    Raises:
        CommandError: an option has no meaning.
    """
    try:
        for text in (given.cache_size, given.cache_floor):
            if text is not None:
                check_limit(text)
    except ValueError as error:
        raise CommandError(str(error), usage=True) from error
    if given.connections is not None and given.connections < 1:
        raise CommandError(f"--connections {given.connections}: give 1 or more", usage=True)
    if given.deadline is not None and not 0 < given.deadline < float("inf"):
        raise CommandError(f"--deadline {given.deadline}: give seconds, more than 0", usage=True)
    keywords: dict[str, Any] = {
        "cache_dir": given.cache_dir,
        "cache_size": given.cache_size,
        "cache_floor": given.cache_floor,
        "connections": given.connections,
        "deadline": given.deadline,
    }
    keywords = {name: value for name, value in keywords.items() if value is not None}
    driver = _driver_options(given.driver)
    if wrong := sorted(driver.keys() & _OURS):
        raise CommandError(f"--option {wrong[0]}: an option of zcfuse, not of a driver", usage=True)
    return functools.partial(
        _checked,
        cache_timeout=options.cache_timeout,
        immutable=options.immutable,
        keywords={**keywords, **driver},
    )


def _driver_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """Read texts KEY=VALUE; a dot in KEY leads into a mapping, and VALUE may be JSON."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        *above, last = name.split(".")
        if not equals or not all((*above, last)):
            raise CommandError(f"--option {name}: write KEY=VALUE", usage=True)
        at = found
        for part in above:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise CommandError(f"--option {name}: {part} is a value already", usage=True)
        at[last] = _value(value)
    return found


def _value(text: str) -> object:
    """Return true, false, null and JSON's lists and mappings as such; all else is text."""
    if text in ("true", "false", "null") or text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _checked(url: str, *, cache_timeout: float, immutable: bool, keywords: dict[str, Any]) -> Tree:
    from zcfuse.remote import Remote  # after the fork, and only for a valid command

    remote = Remote(url, cache_timeout=cache_timeout, immutable=immutable, **keywords)
    try:
        remote.check()
    except BaseException:
        remote.close()
        raise
    return remote
