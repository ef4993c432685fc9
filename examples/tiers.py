"""Two tiers that clients see as one directory: ``tiers.py FAST SLOW MOUNTPOINT [SECONDS]``.

New files go to FAST. A file that nobody changes for SECONDS (60) moves to SLOW. Three further opens
bring it back. Clients keep the file that they have open. A file that a client has open for writing
stays. Ctrl-C unmounts.
"""

import fcntl
import os
import shutil
import sys
import time
from contextlib import suppress

import trio

import zcfuse

OPENS = 3


def move(path: str, source: str, target: str) -> None:
    """Move a file between two tiers. It shows at each moment, with the same bytes."""
    old, new = os.path.join(source, path), os.path.join(target, path)
    unfinished = os.path.join(target, ".unfinished")
    file = os.open(old, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        # Refused while a writer has the file open; a writer who comes later has to wait.
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        os.makedirs(os.path.dirname(new), exist_ok=True)
        shutil.copy2(old, unfinished)
        status = os.fstat(file)
        os.chown(unfinished, status.st_uid, status.st_gid)
        os.replace(unfinished, new)
        os.unlink(old)
    finally:
        os.close(file)


async def demote(fast: str, slow: str, age: float) -> list[str]:
    """Move the files that have not changed for `age` seconds to SLOW; return their paths."""
    moved = []
    for directory, _, names in os.walk(fast):
        for name in names:
            path = os.path.relpath(os.path.join(directory, name), fast)
            with suppress(OSError):
                if time.time() - os.lstat(os.path.join(fast, path)).st_mtime > age:
                    await trio.to_thread.run_sync(move, path, fast, slow)
                    moved.append(path)
    return moved


async def tier(mounted: zcfuse.Mount, fast: str, slow: str, age: float) -> None:
    """Move files both ways, each second. A file that has returned stays."""
    opens_before: dict[str, int] = {}
    returned: set[str] = set()
    while True:
        opens = {file.path.lstrip("/"): file.opens for file in mounted.hot_files()}
        for path, count in opens.items():
            if path in opens_before and count >= opens_before[path] + OPENS:
                with suppress(OSError):
                    await trio.to_thread.run_sync(move, path, slow, fast)
                    returned.add(path)
                    del opens_before[path]
                    os.utime(os.path.join(fast, path))
                    print(f"{path} returned", flush=True)
        for path in await demote(fast, slow, age):
            opens_before[path] = opens.get(path, 0)
            print(f"{path} moved", flush=True)
        await trio.sleep(1)


async def main(fast: str, slow: str, mountpoint: str, age: float) -> None:
    def place(name: str, who: zcfuse.Who, hint: zcfuse.Hint) -> zcfuse.Placement:
        return zcfuse.Placement(fast, leased=True)

    tree = zcfuse.Pool([fast, slow], place)
    options = zcfuse.MountOptions(rw=True)
    async with zcfuse.mount(tree, mountpoint, options) as mounted, trio.open_nursery() as nursery:
        nursery.start_soon(tier, mounted, fast, slow, age)
        await mounted.wait_ended()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    seconds = float(sys.argv[4]) if len(sys.argv) == 5 else 60.0
    try:
        trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3], seconds)
    except* KeyboardInterrupt:
        pass
