"""Which files a program uses: ``trace_opens.py SOURCE MOUNTPOINT COMMAND [ARGUMENT...]``.

Shows SOURCE on MOUNTPOINT while COMMAND runs, and then prints each file that was opened, its size
and how its bytes travelled. The mount keeps its lease: tracing asks Python for nothing.
"""

import contextlib
import sys

import trio

import zcfuse


async def main(source: str, mountpoint: str, command: list[str]) -> int:
    async with zcfuse.mount(zcfuse.Mirror(source), mountpoint) as mount:
        opened: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            await nursery.start(collect, mount, opened)
            process = await trio.run_process(command, check=False)
            await mount.unmount()  # the trace ends with the mount, after its last event
    print("\n".join(opened.values()))
    return process.returncode


async def collect(
    mount: zcfuse.Mount,
    opened: dict[str, str],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with contextlib.aclosing(mount.events()) as events:
        task_status.started()
        async for event in events:
            if event.operation == "OPEN" and event.path is not None:
                opened.setdefault(event.path, f"{event.path}: {event.bytes} bytes, {event.served}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    sys.exit(trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3:]))
