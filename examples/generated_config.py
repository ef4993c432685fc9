"""A file that is generated: ``generated_config.py TEMPLATE MOUNTPOINT NAME=VALUE...``.

Shows one file, called like TEMPLATE, in which each ``$NAME`` is replaced by its VALUE. Nothing is
written to disk: the bytes lie in memory and are served like any file's. On SIGHUP the template is
read again; whoever has the old file open keeps it, whoever opens it then gets the new one. Ctrl-C
unmounts.
"""

import os
import signal
import string
import sys
from collections.abc import AsyncIterator

import trio

import zcfuse


def generate(template: str, values: dict[str, str]) -> zcfuse.Bytes:
    """The file as it is to be shown now."""
    with open(template, encoding="utf-8") as file:
        text = string.Template(file.read()).safe_substitute(values)
    return zcfuse.Bytes(text.encode(), mode=0o444, mtime=os.stat(template).st_mtime)


async def main(template: str, mountpoint: str, values: dict[str, str]) -> None:
    name = os.path.basename(template)
    tree = zcfuse.Dir({name: generate(template, values)})
    # Before the mount, so that no signal is lost and an early Ctrl-C unmounts as a late one does.
    with trio.open_signal_receiver(signal.SIGHUP, signal.SIGINT, signal.SIGTERM) as signals:
        async with zcfuse.mount(tree, mountpoint) as mount, trio.open_nursery() as nursery:

            async def obey(signals: AsyncIterator[int]) -> None:
                async for number in signals:
                    if number != signal.SIGHUP:
                        break
                    tree.replace(name, generate(template, values))
                    await mount.told()
                    print("generated again", flush=True)
                nursery.cancel_scope.cancel()

            nursery.start_soon(obey, signals)
            print(f"{name} is generated in {mount.mountpoint}", flush=True)
            await mount.wait_ended()  # somebody else may unmount
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3 or not all("=" in argument for argument in sys.argv[3:]):
        sys.exit(__doc__)
    pairs = dict(argument.split("=", 1) for argument in sys.argv[3:])
    trio.run(main, sys.argv[1], sys.argv[2], pairs)
