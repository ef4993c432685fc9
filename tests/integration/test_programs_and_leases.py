"""Directory leases and the program that mounts: kept names, and a revoke."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.conftest import PASSTHROUGH, RING, write
from tests.support import requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

PROGRAM = """
import json, os, subprocess, sys, threading
import trio
from zcfuse import Mirror, MountOptions, mount

source, mountpoint = sys.argv[1:3]
CHILD = '''
import os, sys
os.chdir(sys.argv[1])
fd = os.open("file", os.O_RDONLY)
names = os.scandir("many")
first = next(names).name
print(os.pread(fd, 5, 0).decode(), flush=True)
sys.stdin.readline()
print(os.pread(fd, 5, 1 << 20).decode(), 1 + len(list(names)), flush=True)
print(open("file").read(5), sorted(os.listdir("."))[0], os.stat("dir/inner").st_size, flush=True)
print(os.path.exists("missing"), flush=True)
again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
print(os.pread(again, 5, 0).decode(), os.pread(fd, 5, 0).decode(), flush=True)
os.close(fd)
print(os.pread(again, 5, 1 << 20).decode(), os.fstat(again).st_size, flush=True)
'''

async def main():
    options = MountOptions(path=sys.argv[3], transport=sys.argv[4], unmount_wait=1)
    async with mount(Mirror(source), mountpoint, options) as served:
        child = await trio.lowlevel.open_process(
            [sys.executable, "-c", CHILD, mountpoint],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        before = (await child.stdout.receive_some(100)).decode()
        asked = dict(served.statistics()["control"]["upcalls"])
        served.revoke_lease()
        await child.stdin.send_all(b"go\\n")
        with trio.fail_after(20):
            after = b"".join([part async for part in child.stdout]).decode()
            code = await child.wait()
        upcalls = served.statistics()["control"]["upcalls"]
        print(json.dumps([before.split(), asked, after.split(), code, upcalls]))

trio.run(main)
"""


def run(program: str, *arguments: object) -> Any:
    """The JSON output of a separate program."""
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, "PYTHONPATH": CHECKOUT},
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("path", ["pool", "splice", PASSTHROUGH, RING])
def test_a_revoke_leaves_open_files_alone_and_sends_the_rest_to_python(
    tmp_path, path, request
) -> None:
    by = (path, "auto")
    if path == "ring":
        request.getfixturevalue("ring_switch")
        by = ("pool", "uring")
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    (source / "dir").mkdir(parents=True)
    (source / "many").mkdir()
    mountpoint.mkdir()
    (source / "file").write_bytes(b"first".ljust(1 << 20, b".") + b"after")
    (source / "dir" / "inner").write_bytes(b"12")
    for n in range(3000):
        (source / "many" / f"{n}").touch()
    before, asked, after, code, upcalls = run(PROGRAM, source, mountpoint, *by)
    assert (before, asked, code) == (["first"], {}, 0)
    assert after[:6] == ["after", "3000", "first", "dir", "2", "False"]
    # An open by descriptor gets the old node, so both planes have it open at once.
    assert after[6:] == ["first", "first", "after", str((1 << 20) + 5)]
    assert upcalls["open"] >= 2
    assert upcalls["lookup"] >= 1
    assert upcalls["opendir"] >= 1


KEEPING = """
import errno, json, os, subprocess, sys
import trio
from zcfuse import Mirror, MountOptions, mount

CHILD = '''
import json, os, sys
os.chdir(sys.argv[1])
def outcome(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        return error.strerror
print(json.dumps([
    sorted(os.listdir(".")), sorted(os.listdir("dir")), sorted(os.listdir("dir/private")),
    outcome(os.stat, "dir/private/hidden"), open("dir/private/shown").read(), open("file").read(),
    outcome(os.stat, "later"),
]), flush=True)
sys.stdin.readline()
print(json.dumps([outcome(os.stat, "later/hidden"), os.listdir("later")]), flush=True)
'''

class Hiding(Mirror):
    def keeps(self):
        return [b"dir/private", b"later"]

    def lookup(self, directory, name):
        if name == b"hidden":
            raise FileNotFoundError(errno.ENOENT, "hidden")
        return super().lookup(directory, name)

async def main():
    source, mountpoint = sys.argv[1:3]
    async with mount(Hiding(source), mountpoint, MountOptions(cache_timeout=0)) as served:
        child = await trio.lowlevel.open_process(
            [sys.executable, "-c", CHILD, mountpoint],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        with trio.fail_after(20):
            first = (await child.stdout.receive_some(10000)).decode()
            os.mkdir(source + "/later")
            for name in ("hidden", "shown"):
                open(f"{source}/later/{name}", "w").close()
            await child.stdin.send_all(b"go\\n")
            second = b"".join([part async for part in child.stdout]).decode()
            await child.wait()
        counts = served.statistics()
        print(json.dumps([json.loads(first), json.loads(second), counts["control"]["upcalls"],
                          counts["datapath"]["directories"]["leased"]]))

trio.run(main)
"""


def test_a_tree_answers_for_what_it_keeps_and_is_not_asked_for_the_rest(source, mountpoint) -> None:
    os.makedirs(f"{source}/dir/private")
    for name in ("file", "dir/plain", "dir/private/shown", "dir/private/hidden"):
        write(source, name, name.encode())
    first, second, upcalls, leased = run(KEEPING, source, mountpoint)
    missing = "No such file or directory"
    assert first[:3] == [["dir", "file"], ["plain", "private"], ["hidden", "shown"]]
    assert first[3:] == [missing, "dir/private/shown", "file", missing]
    assert second[0] == missing
    assert sorted(second[1]) == ["hidden", "shown"]
    assert leased == 1
    assert upcalls["open"] == 1
    assert upcalls["opendir"] == 2


TELLING = """
import json, os, subprocess, sys
import trio
from zcfuse import Mirror, MountOptions, mount

CHILD = '''
import os, sys
os.chdir(sys.argv[1])
def look():
    found = [os.path.exists(name) for name in ("dir/inner", "new", "new/inner")]
    os.write(1, " ".join(map(str, found)).encode())
look()
sys.stdin.readline()
look()
sys.stdin.readline()
look()
'''

async def main():
    source, mountpoint = sys.argv[1:3]
    async with mount(Mirror(source), mountpoint, MountOptions(cache_timeout=1000)) as served:
        child = await trio.lowlevel.open_process(
            [sys.executable, "-c", CHILD, mountpoint],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        with trio.fail_after(20):
            told = [(await child.stdout.receive_some(100)).decode().split()]
            os.rename(source + "/dir", source + "/new")
            await child.stdin.send_all(b"go\\n")
            told.append((await child.stdout.receive_some(100)).decode().split())
            for name in (b"dir", b"new"):
                await trio.to_thread.run_sync(served._datapath.invalidate_entry, 1, name)
            await child.stdin.send_all(b"go\\n")
            told.append((await child.stdout.receive_some(100)).decode().split())
            await child.wait()
        print(json.dumps(told))

trio.run(main)
"""


def test_a_name_that_the_kernel_is_told_of_is_asked_for_again_with_all_below(
    source, mountpoint
) -> None:
    # By the notifications for kernels before 6.16.
    os.mkdir(f"{source}/dir")
    write(source, "dir/inner", b"inner")
    first, believed, told = run(TELLING, source, mountpoint)
    assert first == believed == ["True", "False", "False"]
    assert told == ["False", "True", "True"]
