"""Directory leases on real mounts: the same tree, without Python being asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import pytest

from tests.integration.conftest import kernel_mount, write
from tests.integration.counts import counts, eventually
from tests.support import requires

pytestmark = requires("mounting")

ANY_BYTES = [b"\xff\xfe\x80", b"new\nline", b"'\"$`\\", "größe".encode(), b" ", b"x" * 255]


@pytest.fixture(params=["dev", pytest.param("uring", marks=requires("root", "io_uring"))])
def transport(request):
    """Each transport in turn; for a ring the kernel's switch is on."""
    if request.param == "uring":
        request.getfixturevalue("ring_switch")
    return request.param


@pytest.fixture
def mounted(mounted, transport):
    """Mounts with leased directories, unless the test says otherwise."""
    by = ("--directory-lease", "--transport", transport)
    return lambda *options, **how: mounted(*by, *options, **how)


def fill(source: str) -> None:
    """One of everything, at several depths."""
    base = os.fsencode(source)
    for depth in range(3):
        for name in ANY_BYTES:
            with open(os.path.join(base, b"plain-" + name[:200]), "wb") as file:
                file.write(name * 100)
        os.symlink(b"plain-" + ANY_BYTES[0], os.path.join(base, b"symlink"))
        os.symlink("/etc/passwd", os.path.join(base, b"absolute"))
        os.mkfifo(os.path.join(base, b"fifo"))
        os.link(os.path.join(base, b"plain- "), os.path.join(base, b"hard"))
        base = os.path.join(base, b"deeper%d" % depth)
        os.mkdir(base)


def test_a_tree_of_everything_is_shown_without_an_upcall(mounted, pairs, source) -> None:
    fill(source)
    daemon = mounted()
    pair = pairs(daemon)
    pair.same("FIELDS.remove('atime_ns')")
    pair.same("tree()")
    pair.same("[digest(content(name)) for name, s in tree().items() if s['mode'] >> 12 == 8]")
    pair.same("sorted(entries())")
    pair.same("os.path.lexists(p('missing'))")
    found = counts(daemon)
    assert found.control["upcalls"] == {}
    assert found.datapath["upcalls"] == {"INIT": 1}
    assert found.datapath["directories"]["leased"] == 1


@pytest.mark.parametrize("option", ["--no-directory-lease", "--path=upcall"])
def test_it_can_be_switched_off(mounted, pairs, source, option) -> None:
    write(source, "file", b"bytes")
    daemon = mounted(option)
    pairs(daemon).same("digest(content('file'))")
    found = counts(daemon)
    assert found.control["upcalls"]["lookup"] == found.control["upcalls"]["open"] == 1
    assert found.datapath["directories"]["leased"] == 0


@requires("root")
def test_what_is_mounted_deep_inside_the_source_is_answered_by_python(
    mounted, pairs, source
) -> None:
    os.makedirs(f"{source}/one/two/inner")
    with kernel_mount("-t", "tmpfs", "zcfuse-tests", f"{source}/one/two/inner"):
        write(f"{source}/one/two/inner", "file", b"inner" * 1000)
        write(f"{source}/one/two", "file", b"outer" * 1000)
        daemon = mounted("--cache-timeout", "0")
        pair = pairs(daemon)
        for name in ("one/two/inner/file", "one/two/file"):
            pair.same(f"digest(content({name!r}))")
        assert counts(daemon).control["upcalls"]["open"] == 1
    pair.same("os.listdir(p('one/two/inner'))")


def test_nodes_that_the_kernel_forgets_are_given_back(mounted, pairs, source) -> None:
    names = [write(source, f"file-{n}") for n in range(500)]
    daemon = mounted("--cache-timeout", "0")
    pair = pairs(daemon)
    look = "[os.path.lexists(p(f'file-{n}')) for n in range(500)]"
    assert all(pair.same(look))
    assert counts(daemon).datapath["directories"]["nodes"] > 500
    for name in names:
        os.unlink(name)
    assert not any(pair.same(look))
    assert eventually(lambda: counts(daemon).datapath["directories"]["nodes"] < 10)


def test_a_walk_needs_few_descriptors(mounted, pairs, source) -> None:
    for n in range(600):
        os.makedirs(f"{source}/dir-{n % 20}/dir-{n}")
        write(f"{source}/dir-{n % 20}/dir-{n}", "file")
    daemon = mounted()
    pairs(daemon).same("len(tree())")
    directories = counts(daemon).datapath["directories"]
    assert directories["descriptors"] <= directories["descriptor_limit"]
    assert directories["node_bytes"] / directories["nodes"] <= 200


PROGRAM = """
import json, os, subprocess, sys, threading
import trio
from zcfuse import Mirror, MountOptions, mount

source, mountpoint, transport = sys.argv[1:]
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
'''

async def main():
    options = MountOptions(unmount_wait=1, directory_lease=True, transport=transport)
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


def test_a_revoke_leaves_open_files_alone_and_sends_the_rest_to_python(tmp_path, transport) -> None:
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    (source / "dir").mkdir(parents=True)
    (source / "many").mkdir()
    mountpoint.mkdir()
    (source / "file").write_bytes(b"first".ljust(1 << 20, b".") + b"after")
    (source / "dir" / "inner").write_bytes(b"12")
    for n in range(3000):
        (source / "many" / f"{n}").touch()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, source, mountpoint, transport],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, asked, after, code, upcalls = json.loads(result.stdout)
    assert (before, asked, code) == (["first"], {}, 0)
    assert after == ["after", "3000", "first", "dir", "2", "False"]
    assert upcalls["open"] >= 1
    assert upcalls["lookup"] >= 1
    assert upcalls["opendir"] >= 1


@pytest.mark.parametrize("swap", ["symlink", "fifo", "other file"])
def test_a_file_swapped_while_it_is_read_is_never_mistaken(mounted, clients, source, swap) -> None:
    right, wrong = b"right" * 1000, b"WRONG" * 1000
    write(os.path.dirname(source), "outside", wrong)
    write(source, "file", right)
    client = clients(mounted("--cache-timeout", "0"))
    done = threading.Event()

    def outsider() -> None:
        while not done.is_set():
            os.rename(f"{source}/file", f"{source}/away")
            if swap == "symlink":
                os.symlink(f"{os.path.dirname(source)}/outside", f"{source}/file")
            elif swap == "fifo":
                os.mkfifo(f"{source}/file")
            else:
                write(source, "file", b"other" * 1000)
            os.unlink(f"{source}/file")
            os.rename(f"{source}/away", f"{source}/file")

    thread = threading.Thread(target=outsider)
    thread.start()
    read = "os.pread(os.open(p('file'), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), 5000, 0)"
    try:
        answers = [client.outcome(read) for _ in range(300)]
    finally:
        done.set()
        thread.join()
    assert wrong not in answers
    found = {answer for answer in answers if isinstance(answer, bytes)}
    whole = {right, b"other" * 1000} if swap == "other file" else {right}
    assert all(any(one.startswith(answer) for one in whole) for answer in found)
