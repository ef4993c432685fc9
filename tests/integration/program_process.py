"""A program that mounts a tree: ``python -m tests.integration.program_process MOUNTPOINT``.

The first line of standard input is a JSON string of Python source that sets ``tree`` and may set
``options``. After the mount, each further line is the body of an async function, which runs in the
mount's trio loop. The answer is the repr of ("value", ...) or ("error", text). The program ends
with its standard input.
"""

import json
import logging
import os
import sys
import textwrap
import traceback
from typing import Any

import trio

import zcfuse

_NAMES = {name: getattr(zcfuse, name) for name in zcfuse.__all__}


async def serve(mountpoint: str) -> None:
    """Mount the tree of the first line, and run the other lines."""
    names: dict[str, Any] = dict(_NAMES)
    names.update(os=os, trio=trio, options=None)
    with os.fdopen(os.dup(0), "rb", buffering=0) as file:
        lines = trio.lowlevel.FdStream(os.dup(file.fileno()))
    received = b""
    while b"\n" not in received:
        received += await lines.receive_some()
    first, _, received = received.partition(b"\n")
    exec(json.loads(first), names)
    async with zcfuse.mount(names["tree"], mountpoint, names["options"]) as served:
        names["served"] = served
        print("('value', 'mounted')", flush=True)
        async for part in lines:
            received += part
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                print(repr(await run(json.loads(line), names)), flush=True)


async def run(body: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run the body of a function and return its result."""
    try:
        exec("async def _run():\n" + textwrap.indent(body, "    "), names)
        return "value", await names["_run"]()
    except Exception:
        return "error", traceback.format_exc()


def main() -> None:
    """Serve the mount that the command line names."""
    logging.basicConfig(level=logging.INFO)
    trio.run(serve, sys.argv[1])


if __name__ == "__main__":
    main()
