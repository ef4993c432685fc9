"""A mount inside a trio program: ``mount_from_trio.py SOURCE MOUNTPOINT COMMAND [ARGUMENT...]``.

Shows SOURCE on MOUNTPOINT for as long as COMMAND runs, and exits with its status. The mount is
served by threads of its own and by tasks of this trio loop, so the loop must not be blocked: that
is why the command is awaited and not run with subprocess.
"""

import sys

import trio

import zcfuse


async def main(source: str, mountpoint: str, command: list[str]) -> int:
    async with zcfuse.mount(zcfuse.Mirror(source), mountpoint) as mount:
        print(f"{source} is mounted on {mount.mountpoint}", flush=True)
        process = await trio.run_process(command, check=False)
    print("unmounted")
    return process.returncode


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:]))
