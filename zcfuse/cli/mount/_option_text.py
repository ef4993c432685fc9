"""Reads the text of ``-o``: options of a mount, and the other options of the command line.

Every option of ``zcfuse mount`` has a name here, because fstab, systemd units and mount(8) pass
all options in one text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from zcfuse.cli.mount._archives import KEEP
from zcfuse.cli.mount._engine import ENGINES
from zcfuse.control import LOG_LEVELS
from zcfuse.linux import MountError
from zcfuse.options import parse_mount_options, parse_size, split_options

_SEVERAL: Final = ("layer", "archive", "archives", "hide", "option")


# Options of mount(8) itself, and general ones that change nothing here. A zcfuse mount is always
# nosuid and nodev, and writes no access times.
_OF_ANY_MOUNT: Final = frozenset(
    {"_netdev", "auto", "defaults", "loud", "noauto", "nofail", "silent"}
    | {"group", "nogroup", "nouser", "nousers", "noowner", "owner", "user", "users"}
    | {"async", "dev", "dirsync", "iversion", "mand", "noiversion", "nomand", "suid", "sync"}
    | {"atime", "diratime", "lazytime", "noatime", "nodiratime", "nolazytime"}
    | {"norelatime", "nostrictatime", "relatime", "strictatime"}
)
_OF_ANY_MOUNT_BEGIN: Final = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")


def _one_of(choices: Iterable[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in choices:
            raise ValueError(f"choose one of {', '.join(choices)}")
        return value

    return convert


_CONVERTERS: Final[dict[str, Callable[[str], object]]] = {
    "tree": str,
    "layer": str,
    "archive": str,
    "archives": str,
    "hide": str,
    "keep_index": _one_of(KEEP),
    "unpack_budget": parse_size,
    "option": str,
    "cache_dir": str,
    "cache_size": str,
    "cache_floor": str,
    "connections": int,
    "engine": _one_of(ENGINES),
    "log_file": str,
    "log_level": _one_of(LOG_LEVELS),
}
OPTION_NAMES: Final = [*(f"{name}=" for name in _CONVERTERS), "salvage"]


@dataclass(slots=True)
class OptionText:
    """The options of one ``-o`` text; those that it leaves out are None, False or empty.

    ``mount`` holds keyword arguments of `MountOptions`.
    """

    mount: dict[str, object] = field(default_factory=dict)
    tree: str | None = None
    layer: tuple[str, ...] = ()
    archive: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    hide: tuple[str, ...] = ()
    keep_index: str | None = None
    salvage: bool = False
    unpack_budget: int | None = None
    option: tuple[str, ...] = ()
    cache_dir: str | None = None
    cache_size: str | None = None
    cache_floor: str | None = None
    connections: int | None = None
    engine: str | None = None
    log_file: str | None = None
    log_level: str | None = None

    @property
    def names_what_is_shown(self) -> bool:
        """Whether one of the options replaces SOURCE."""
        return bool(self.tree or self.layer or self.archive or self.archives)


def read_option_texts(texts: Iterable[str], *, sloppy: bool = False) -> OptionText:
    """Read the texts of one or more ``-o``.

    Parameters:
        texts: each as mount(8) writes it.
        sloppy: ignore unknown options, as ``mount -s`` does.

    Raises:
        MountError: an option is unknown, lacks its value or is refused.
    """
    said = OptionText()
    for option in (option for text in texts for option in split_options(text)):
        _read(said, option, sloppy=sloppy)
    return said


def _read(said: OptionText, option: str, *, sloppy: bool) -> None:
    name, _, value = option.partition("=")
    if option in _OF_ANY_MOUNT or option.startswith(_OF_ANY_MOUNT_BEGIN):
        return
    if option == "salvage":
        said.salvage = True
    elif name in _CONVERTERS and not value:
        raise MountError(f"-o {option}: needs a value: -o {name}=...", usage=True)
    elif name in _SEVERAL:
        setattr(said, name, (*getattr(said, name), value))
    elif name in _CONVERTERS:
        setattr(said, name, _converted(name, value))
    else:
        try:
            said.mount.update(parse_mount_options(option, OPTION_NAMES))
        except MountError as error:
            if not (sloppy and "unknown option" in str(error)):
                raise


def _converted(name: str, value: str) -> object:
    try:
        return _CONVERTERS[name](value)
    except ValueError as error:
        raise MountError(f"-o {name}={value}: {error}", usage=True) from error
