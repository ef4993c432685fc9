"""The options of ``zcfuse mount``: those of `MountOptions`, the tree's and the log's.

``-o`` has every option, because a line of fstab, a systemd unit and mount(8) have no other place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from zcfuse.cli.mount._archives import KEEP, ArchiveOptions
from zcfuse.cli.mount._engine import ENGINES
from zcfuse.cli.mount._remote import RemoteOptions
from zcfuse.cli.mount._shown import ChosenSources
from zcfuse.control import DEFAULT_LOG_LEVEL, LOG_LEVELS
from zcfuse.linux import MountError
from zcfuse.options import (
    MOUNT_OPTIONS,
    NO_TIMEOUT_IF_IMMUTABLE,
    MountOptions,
    Option,
    RefusedOptionError,
    parse_options,
    parse_size,
    split_options,
)

_Command = TypeVar("_Command", bound=Callable[..., Any])

TREE_OPTIONS: Final = (
    Option(
        name="tree",
        help="Show the tree that a manifest describes (.toml, .jsonl), instead of SOURCE.",
        metavar="F",
        completes="file",
    ),
    Option(
        name="layer",
        help="Show several layers as one, instead of SOURCE; the first is on top. A layer is a"
        " directory, an archive, a manifest or a URL. The whiteouts of overlayfs and OCI images"
        " hide names of lower layers.",
        metavar="LAYER",
        several=True,
        completes="file",
    ),
    Option(
        name="upper",
        help="Keep changes of the layers in this directory, which is above them: clients may"
        " write, and no layer changes. Overlayfs can mount it too.",
        metavar="DIR",
        completes="dir",
    ),
    Option(
        name="work",
        help="Where files of --upper are prepared: an empty directory on the same filesystem."
        " zcfuse makes the default.",
        default_text="UPPER.work",
        metavar="DIR",
        completes="dir",
    ),
    Option(
        name="metacopy",
        help="With --upper, chmod, chown, touch and setfattr copy a file's attributes alone. Its"
        " bytes follow with the first write. Overlayfs then needs metacopy=on; only for root.",
        words={"metacopy": True},
    ),
    Option(
        name="redirect_dir",
        help="With --upper, a directory of a layer can be renamed. Without it the rename fails with"
        " EXDEV, and mv copies. As overlayfs's redirect_dir=on; only for root.",
        words={"redirect_dir": True},
    ),
    Option(
        name="archive",
        help="Show a tar (also compressed) or zip archive as a directory, instead of SOURCE."
        " Repeat it for several.",
        metavar="F",
        several=True,
        completes="file",
    ),
    Option(
        name="archives",
        help="Show each tar or zip archive of DIR as a directory, instead of SOURCE.",
        metavar="DIR",
        several=True,
        completes="dir",
    ),
    Option(
        name="hide",
        help="Do not show what matches, such as .git or '*.tmp'; may be given again. A pattern with"
        " a / is for a path from the root, one with a / at its end for directories.",
        metavar="PATTERN",
        several=True,
    ),
    Option(
        name="keep_index",
        help="Where to keep the index of an archive for the next mount: in"
        " $XDG_CACHE_HOME/zcfuse/archives (or ~/.cache/...), beside it as ARCHIVE.zcidx, or"
        " nowhere.",
        default="cache",
        choices=tuple(KEEP),
    ),
    Option(
        name="salvage",
        help="Show the part of a tar archive before its damage or cut.",
        words={"salvage": True},
    ),
    Option(
        name="unpack_budget",
        help="Memory for the decompressed members of all archives together.",
        default_text="1G",
        read=parse_size,
        metavar="SIZE",
    ),
    Option(
        name="option",
        help="An option of the driver of a URL, as fsspec names it. The mount hides the value from"
        " ps(1) once it has read it.",
        metavar="KEY=VALUE",
        several=True,
    ),
    Option(
        name="cache_dir",
        help="Where to keep fetched bytes of a URL. Mounts may share it.",
        default_text="$XDG_CACHE_HOME/zcfuse/remote or ~/.cache/...",
        metavar="DIR",
        completes="dir",
    ),
    Option(
        name="cache_size",
        help="Limit of that directory, as in 50G, or a share of its disk.",
        default_text="20%",
        metavar="SIZE",
    ),
    Option(
        name="cache_floor",
        help="Space to leave free on that disk, as in 10G, or a share of it.",
        default_text="1%",
        metavar="SIZE",
    ),
    Option(
        name="connections",
        help="Requests to the server of a URL at a time.",
        default_text="16",
        read=int,
        metavar="N",
    ),
    Option(
        name="deadline",
        help="Seconds for which a request to a URL's server is repeated; then clients get EIO.",
        default_text="25",
        read=float,
        metavar="S",
    ),
    Option(
        name="engine",
        help="Serve the whole mount by the kernel, without a daemon, or by FUSE. auto: the kernel"
        " serves a frozen image if root mounts it and no option needs FUSE.",
        default="auto",
        choices=ENGINES,
    ),
)
LOG_OPTIONS: Final = (
    Option(name="log_file", help="Append the log to this file.", metavar="F", completes="file"),
    Option(
        name="log_level",
        help="Log messages of this level and above.",
        default=DEFAULT_LOG_LEVEL,
        choices=LOG_LEVELS,
    ),
)
OPTIONS: Final = (*TREE_OPTIONS, *MOUNT_OPTIONS, *LOG_OPTIONS)

# Options of mount(8) itself, and options of any mount that have no effect on a read-only mount:
# zcfuse always mounts nosuid and nodev, and writes no times.
_OF_ANY_MOUNT: Final = frozenset(
    {"_netdev", "auto", "defaults", "loud", "noauto", "nofail", "silent"}
    | {"group", "nogroup", "nouser", "nousers", "noowner", "owner", "user", "users"}
    | {"async", "dev", "dirsync", "iversion", "mand", "noiversion", "nomand", "suid", "sync"}
    | {"atime", "diratime", "lazytime", "noatime", "nodiratime", "nolazytime"}
    | {"norelatime", "nostrictatime", "relatime", "strictatime"}
    | {"nosuid", "nodev", "default_permissions"}
)
_OF_ANY_MOUNT_BEGIN: Final = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")


class _Value(click.ParamType[object]):
    """A value of an option, with the option's checks and completion."""

    def __init__(self, option: Option) -> None:
        self._option = option
        self.name = option.placeholder

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """Return the value; a wrong text is a usage error."""
        try:
            return self._option.value_of(str(value))
        except ValueError as error:
            self.fail(f"{value}: {error}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the fitting choices, or let the shell complete a file or directory."""
        if self._option.completes:
            return [CompletionItem(incomplete, type=self._option.completes)]
        return _beginning(map(str, self._option.choices), incomplete)


def with_options(command: _Command) -> _Command:
    """Give a command all options; each is a keyword argument, None or empty if not given."""
    words = ", ".join(spelling for option in OPTIONS for spelling in option.spellings)
    decorators = [_decorator(option) for option in OPTIONS if option.declaration]
    decorators.insert(
        len(TREE_OPTIONS),
        click.option(
            "-o",
            "option_texts",
            metavar="OPT,...",
            multiple=True,
            shell_complete=_last_option,
            help=f"Options as mount(8) writes them, separated by commas: {words}. A separate"
            " option, such as --path, overrides its name in -o.",
        ),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def _decorator(option: Option) -> Callable[[_Command], _Command]:
    spelling, text = option.declaration, option.help_with_default
    if "/" in spelling:
        return click.option(spelling, option.name, default=None, help=text)
    if option.words:
        value = not spelling.startswith("--no-")
        return click.option(
            spelling, option.name, flag_value=value, type=bool, default=None, help=text
        )
    metavar = option.metavar or f"[{option.placeholder}]"
    return click.option(
        spelling,
        option.name,
        type=_Value(option),
        metavar=metavar,
        multiple=option.several,
        help=text,
    )


def _last_option(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the options that may follow the last comma of ``-o``."""
    before, comma, last = incomplete.rpartition(",")
    known = sorted({spelling for option in OPTIONS for spelling in option.spellings})
    return [CompletionItem(before + comma + item.value) for item in _beginning(known, last)]


def _beginning(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def read_option_texts(texts: Iterable[str], *, sloppy: bool = False) -> dict[str, object]:
    """Return the values that one or several ``-o`` give, by name.

    Parameters:
        texts: each as mount(8) writes it.
        sloppy: skip unknown options, as ``mount -s`` does.

    Raises:
        MountError: an option is unknown, lacks its value or is refused.
    """
    ours = [
        f'"{given}"'
        for text in texts
        for given in split_options(text)
        if given not in _OF_ANY_MOUNT and not given.startswith(_OF_ANY_MOUNT_BEGIN)
    ]
    return parse_options(",".join(ours), OPTIONS, sloppy=sloppy)


def merged(said: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return the values of ``-o`` and those of separate options, which count more."""
    values = dict(said)
    for option in OPTIONS:
        value: Any = given.get(option.name)
        if value not in (None, ()):
            before: Any = said.get(option.name, ())
            values[option.name] = (*value, *before) if option.several else value
    return values


def mount_options(values: Mapping[str, object]) -> MountOptions:
    """Return the options of the mount. Raises MountError if they exclude each other."""
    if values.get("immutable") and "cache_timeout" in values:
        raise RefusedOptionError("cache_timeout", values["cache_timeout"], NO_TIMEOUT_IF_IMMUTABLE)
    ours: Any = {one.name: values[one.name] for one in MOUNT_OPTIONS if one.name in values}
    if values.get("upper") is not None:
        ours["rw"] = True
    return MountOptions(**ours)


def told(error: MountError, given: Mapping[str, object]) -> str:
    """Return the text of an error; it names a refused option as the user wrote it.

    Parameters:
        error: the error.
        given: the separate options; the others were in ``-o``.
    """
    option = next((one for one in OPTIONS if one.name == getattr(error, "name", None)), None)
    if not isinstance(error, RefusedOptionError) or option is None:
        return str(error)
    is_separate = given.get(option.name) is not None
    write = option.on_command_line if is_separate else option.in_option_text
    return f"{write(error.value)}: {error.remedy}"


def wanted(source: str | None, values: Mapping[str, Any]) -> ChosenSources:
    """Return what the command line names."""
    return ChosenSources(
        source=source,
        manifest=values.get("tree"),
        layers=values.get("layer", ()),
        upper=values.get("upper"),
        work=values.get("work"),
        metacopy=values.get("metacopy", False),
        redirect_dir=values.get("redirect_dir", False),
        archives=values.get("archive", ()),
        archive_directories=values.get("archives", ()),
        hide=values.get("hide", ()),
        archive_options=ArchiveOptions(
            values.get("keep_index"), values.get("salvage", False), values.get("unpack_budget")
        ),
        remote_options=RemoteOptions(
            values.get("option", ()),
            values.get("cache_dir"),
            values.get("cache_size"),
            values.get("cache_floor"),
            values.get("connections"),
            values.get("deadline"),
        ),
    )
