"""A generated file: ``generated_config.py TEMPLATE MOUNTPOINT NAME=VALUE...``.

Shows one file, named like TEMPLATE, with each ``$NAME`` replaced by its VALUE. The bytes stay in
memory, and the mount serves them like any file's. On SIGHUP the program reads the template again:
clients that have the old file open keep it, and later opens get the new one. Ctrl-C unmounts.
"""

import os
import signal
import string
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse


def generate(template: str, values: dict[str, str]) -> zcfuse.Bytes:
    """Return the file with the current values."""
    with open(template, encoding="utf-8") as file:
        text = string.Template(file.read()).safe_substitute(values)
    return zcfuse.Bytes(text.encode(), mode=0o444, mtime=os.stat(template).st_mtime)


async def main(template: str, mountpoint: str, values: dict[str, str]) -> None:
    name = os.path.basename(template)
    tree = zcfuse.Dir({name: generate(template, values)})
    # Open it before the mount, so that no signal is lost and an early Ctrl-C also unmounts.
    with trio.open_signal_receiver(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:

            async def obey(signals: AsyncIterator[int]) -> None:
                async for number in signals:
                    if number != signal.SIGHUP:
                        break
                    tree.replace(name, generate(template, values))
                    await mount.notified()
                    print("generated again", flush=True)
                nursery.cancel_scope.cancel()

            nursery.start_soon(obey, signals)
            print(f"{name} is generated in {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # another process may unmount
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in argument for argument in sys.argv[3:]):
        sys.exit(__doc__)
    pairs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    trio.run(main, sys.argv[1], sys.argv[2], pairs)
