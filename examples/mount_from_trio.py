"""A mount inside a trio program: ``mount_from_trio.py SOURCE MOUNTPOINT COMMAND [ARGUMENT...]``.

Shows SOURCE on MOUNTPOINT while COMMAND runs, and exits with its status. Native threads and tasks
of this trio loop serve the mount, so nothing may block the loop. The program therefore awaits the
command instead of using subprocess.
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
