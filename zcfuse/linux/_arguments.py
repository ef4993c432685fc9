"""The command line of this process, as ps(1) and /proc/PID/cmdline show it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

_STAT: Final = "/proc/self/stat"
# Fields of proc(5), counted from the state, which follows the name of the program.
_ARG_START, _ARG_END = 45, 46


def hide_in_arguments(secrets: Iterable[str]) -> bool:
    """Overwrite texts in this process's command line; return whether all of them are gone.

    Processes forked later show the same. Others may have seen the text before the call.
    """
    wanted = [os.fsencode(text) for text in secrets if text]
    try:
        with open(_STAT, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            shown = bytearray(memory.read(end - start))
            for text in sorted(wanted, key=len, reverse=True):
                shown = shown.replace(text, b"*" * len(text))
            memory.seek(start)
            memory.write(shown)
    except OSError:
        return not wanted
    return True
