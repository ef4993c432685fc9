"""The plan of a mount: what each of its daemons is started with, in a sealed memfd.

Arguments and URLs may hold secrets, which ps(1) would show if they stood on a command line. Every
daemon of the mount reads the same plan, also one of a later version.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Where the holder puts them (zcfuse/datapath/native/holder/child.hpp).
SOCKET_AT: Final = 3
PLAN_AT: Final = 4
REPORT_AT: Final = 5

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of a daemon that shows the tree.

    Parameters:
        source: the first argument of ``zcfuse mount``.
        where: the mount point: absolute, without symlinks.
        values: the options, by name.
        name: what the mount table shows as the source.
        directory: where relative paths start.
        foreground: whether standard error is the log.
        modules: `sys.path` of the command.
    """

    source: str | None
    where: str
    values: Mapping[str, Any]
    name: str | None
    directory: str
    foreground: bool
    modules: tuple[str, ...]

    def stored(self) -> int:
        """Return a descriptor of a sealed memfd with the plan; the caller closes it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        descriptor = os.memfd_create("zcfuse-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # The escapes of JSON also hold the surrogates that stand for bytes outside of UTF-8.
        os.write(descriptor, json.dumps(fields).encode("ascii"))
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        return descriptor

    @classmethod
    def load(cls, descriptor: int) -> Plan:
        """Read the plan that `stored` wrote. The descriptor stays open."""
        text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        fields = json.loads(text)
        fields["values"] = {name: _restored(value) for name, value in fields["values"].items()}
        fields["modules"] = tuple(fields["modules"])
        return cls(**fields)


def _restored(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
