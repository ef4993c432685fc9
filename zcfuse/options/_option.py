"""One option: its values, its meaning, and how users write it.

The command line, ``-o``, the manual pages, the reference and the checks of `MountOptions` follow
from these records.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from zcfuse.linux import MountError
from zcfuse.options._text import split_options

_NUMBERS: Final = (int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a mount.

    Parameters:
        help: what it does, in one or two sentences for ``--help``.
        more: further sentences for the reference.
        name: the name in Python; ``-o`` has the same, and the command line writes ``-`` for ``_``.
        default: the value if the user gives none.
        default_text: the default in words, if `default` does not show it.
        read: makes a value of its text; raises ValueError.
        metavar: what stands for a value in the help.
        choices: all valid values, if they are few.
        refuse: returns how to correct an invalid value, "" for a valid one.
        command: the spelling on the command line, if not the usual one; "" for none.
        words: for a flag, what ``-o`` writes for each value.
        in_text: whether ``-o`` has the option.
        several: whether users may repeat it to give several values.
        completes: whether a shell completes a "file" or a "dir".
    """

    help: str
    more: str = ""
    name: str = ""
    default: object = None
    default_text: str = ""
    read: Callable[[str], object] = str
    metavar: str = ""
    choices: Sequence[object] = ()
    refuse: Callable[[Any], str] | None = None
    command: str | None = None
    words: Mapping[str, object] = field(default_factory=dict)
    in_text: bool = True
    several: bool = False
    completes: str = ""

    @property
    def declaration(self) -> str:
        """The option's spelling on the command line; "" for none."""
        return f"--{self.name.replace('_', '-')}" if self.command is None else self.command

    @property
    def spellings(self) -> list[str]:
        """The option's spellings in ``-o``, with ``=`` where a value follows."""
        return (list(self.words) or [f"{self.name}="]) if self.in_text else []

    def on_command_line(self, value: object) -> str:
        """The option with a value, as a user types it on the command line."""
        if not self.words:
            return f"{self.declaration} {value}"
        yes, _, no = self.declaration.partition("/")
        return no if no and not value else yes

    def in_option_text(self, value: object) -> str:
        """The option with a value, as a user writes it in ``-o``."""
        if not self.words:
            return f"-o {self.name}={value}"
        # Of several words for a value the last one means the same to mount(8) too.
        return f"-o {({meant: word for word, meant in self.words.items()})[value]}"

    @property
    def placeholder(self) -> str:
        """The name of a value in the help; "" for a flag."""
        if self.words:
            return ""
        return self.metavar or "|".join(map(str, self.choices)) or "TEXT"

    @property
    def help_with_default(self) -> str:
        """The help, and the default behind it."""
        if not (shown := self.default_text or ("" if self.words else _plain(self.default))):
            return self.help
        return f"{self.help} [default: {shown}]"

    def refusal(self, value: object) -> str:
        """Return how to correct an invalid value, "" for a valid one."""
        if value is None:
            return ""
        if self.choices and value not in self.choices:
            return f"choose one of {', '.join(map(str, self.choices))}"
        return self.refuse(value) if self.refuse is not None else ""

    def value_of(self, text: str) -> object:
        """Return the value of a text. Raises ValueError with how to correct it."""
        try:
            value = self.read(text)
        except ValueError as error:
            if self.read in _NUMBERS:
                raise ValueError(f"{text!r} is not a number") from error
            raise
        if remedy := self.refusal(value):
            raise ValueError(remedy)
        return value


class RefusedOptionError(MountError):
    """A value of an option that is wrong, or does not go with another option.

    Parameters:
        name: the option's name in Python; the text of the error writes it so.
        value: the refused value.
        remedy: how to correct it.
    """

    def __init__(self, name: str, value: object, remedy: str) -> None:
        super().__init__(f"{name}={value}: {remedy}", usage=True)
        self.name = name
        self.value = value
        self.remedy = remedy


def option(default: Any, help: str, **others: Any) -> Any:  # noqa: ANN401 - as dataclasses.field
    """Return a field of a dataclass that is an `Option`."""
    known = Option(help=help, default=default, **others)
    return field(default=default, metadata={"option": known})


def parse_options(
    text: str, options: Iterable[Option], *, sloppy: bool = False
) -> dict[str, object]:
    """Read the text of ``-o``: options separated by commas, each ``name`` or ``name=value``.

    Parameters:
        text: the options.
        options: the known ones.
        sloppy: skip unknown options, as ``mount -s`` does.

    Returns:
        The given values by name. If a name repeats, the last wins, or a tuple has several.

    Raises:
        MountError: an option is unknown, lacks its value or is refused.
    """
    table = {spelling: one for one in options for spelling in one.spellings}
    values: dict[str, object] = {}
    for given in split_options(text):
        name, equals, value = given.partition("=")
        if not equals and name in table:
            values[table[name].name] = table[name].words[name]
        elif f"{name}=" in table:
            known = table[f"{name}="]
            read = _read(known, given, value)
            before: Any = values.get(known.name, ())
            values[known.name] = (*before, read) if known.several else read
        elif not sloppy or (equals and name in table):
            raise MountError(f"-o {given}: {_unknown(name, bool(equals), table)}", usage=True)
    return values


def _read(known: Option, given: str, value: str) -> object:
    if not value:
        raise MountError(f"-o {given}: needs a value: -o {known.name}=...", usage=True)
    try:
        return known.value_of(value)
    except ValueError as error:
        raise MountError(f"-o {given}: {error}", usage=True) from error


def _unknown(name: str, has_value: bool, table: Mapping[str, Option]) -> str:
    if has_value and name in table:
        return f"takes no value: -o {name}"
    close = difflib.get_close_matches(name, [known.rstrip("=") for known in table], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown option; {hint}known are {', '.join(sorted(table))}"


def _plain(default: object) -> str:
    if default is None:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)
