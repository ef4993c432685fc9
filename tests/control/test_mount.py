"""`zcfuse.control.mount` from a trio program.

Each case is a separate program: the test process must not serve the mount that it reads.
"""

import subprocess
import sys

import pytest

from tests.support import find_mount, requires
from tests.support._user import CHECKOUT

pytestmark = requires("mounting")

PROGRAM = """
import sys, subprocess, trio
from zcfuse import MountError, MountOptions, mount
from zcfuse.tree import Mirror
source, mountpoint, path, case = sys.argv[1:]

async def client(*argv):
    with trio.fail_after(20):
        return (await trio.run_process(argv, capture_stdout=True, check=False)).stdout

async def main():
    options = MountOptions(path=path, unmount_wait=0.2)
    await globals()[case](Mirror(source), options)

async def reads(tree, options):
    async with mount(tree, mountpoint, options) as served:
        print((await client("cat", f"{mountpoint}/file")).decode())
        counts = served.statistics()
        asked = counts["datapath"]["requests"]["OPEN"] if counts["datapath"] else 0
        print(served.mountpoint == mountpoint, asked or counts["control"]["upcalls"]["open"])

async def raises(tree, options):
    try:
        async with mount(tree, mountpoint, options):
            raise KeyError("the caller's own")
    except KeyError as error:
        print("raised", error)

async def cancels(tree, options):
    with trio.move_on_after(0.3) as scope:
        async with mount(tree, mountpoint, options):
            await trio.sleep_forever()
    print("cancelled", scope.cancelled_caught)

async def cancels_busy(tree, options):
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            async with mount(tree, mountpoint, options):
                script = 'cd "$0"; exec sleep 30'
                process = await nursery.start(trio.run_process, ["sh", "-c", script, mountpoint])
                await trio.sleep_forever()
        print("cancelled")
        nursery.cancel_scope.cancel()

async def twice(tree, options):
    for _ in range(2):
        async with mount(tree, mountpoint, options):
            print((await client("cat", f"{mountpoint}/file")).decode())

async def nested(tree, options):
    other = source + "/dir"
    async with mount(tree, mountpoint, options), mount(Mirror("/etc"), other, options):
        print((await client("cat", f"{mountpoint}/file")).decode())
        print(await client("cmp", f"{other}/passwd", "/etc/passwd"))

async def unmounted_outside(tree, options):
    async with mount(tree, mountpoint, options) as served:
        await client("fusermount3", "-u", mountpoint)
        with trio.fail_after(10):
            print(await served.wait_ended())

async def asks_to_end(tree, options):
    async with mount(tree, mountpoint, options) as served:
        served.request_end()
        with trio.fail_after(10):
            print(await served.wait_ended(), (await served.unmount()).failed)

async def keeps_nothing_that_is(tree, options):
    for path in (b"", b"/dir", b"dir/", b"dir//x", b"../dir", b"."):
        tree.keeps = lambda path=path: [path]
        try:
            async with mount(tree, mountpoint, options):
                pass
        except ValueError as error:
            print(error)

async def no_passthrough(tree, options):
    from zcfuse.control import Mount
    Mount._greeting = lambda self: {"done": True, "passthrough": False}
    try:
        async with mount(tree, mountpoint, options):
            pass
    except MountError as error:
        print(error)

trio.run(main)
"""


@pytest.fixture
def program(tmp_path, source, mountpoint):
    (tmp_path / "source" / "file").write_text("hello")
    (tmp_path / "source" / "dir").mkdir()

    def run(path, case):
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, source, mountpoint, path, case],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=CHECKOUT,
        )
        assert (result.returncode, result.stderr) == (0, ""), result
        assert find_mount(mountpoint) is None
        return result.stdout.splitlines()

    return run


@pytest.mark.parametrize("path", ["naive", "auto"])
@pytest.mark.parametrize(
    ("case", "output"),
    [
        ("reads", ["hello", "True 1"]),
        ("raises", ['raised "the caller\'s own"']),
        ("cancels", ["cancelled True"]),
        ("cancels_busy", ["cancelled"]),
        ("twice", ["hello", "hello"]),
        ("nested", ["hello", "b''"]),
        ("unmounted_outside", ["unmounted"]),
        ("asks_to_end", ["unmounted False"]),
    ],
)
def test_a_mount_in_a_program(program, path, case, output):
    assert program(path, case) == output


def test_a_tree_that_keeps_what_is_no_path_below_it_is_refused(program):
    lines = program("auto", "keeps_nothing_that_is")
    assert len(lines) == 6
    assert all(line.startswith("not a path below the leased directory: ") for line in lines)


@requires("root")
def test_passthrough_demanded_of_a_kernel_without_it_is_refused(program):
    (line,) = program("passthrough", "no_passthrough")
    assert line.startswith("--path passthrough: this kernel (")
    assert line.endswith("use --path auto")
