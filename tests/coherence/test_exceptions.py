"""The exceptions of pushes: docs/semantics.md, "Changes that are pushed"."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.coherence.pushed import PUSH, sync
from tests.integration.conftest import kernel_mount, serving
from tests.support import DEADLINE_S, Daemon, eventually, requires
from tests.support._capabilities import memory_cgroups

pytestmark = requires("mounting", "root")

FILES: Final = 20_000
NARROW_BYTES: Final = 1 << 20

# Prints each event: the mask in hexadecimal, and the name. The last event is the opening of "end".
_INOTIFY: Final = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None)
queue = libc.inotify_init1(0)
for path in sys.argv[1:]:
    assert libc.inotify_add_watch(queue, os.fsencode(path), 0xfff) > 0
print("ready", flush=True)
name = b""
while name != b"end":
    data = os.read(queue, 1 << 16)
    while data:
        _, mask, _, size = struct.unpack_from("iIII", data)
        name = data[16:16 + size].rstrip(bytes(1))
        print(f"{mask:x} {name.decode()}", flush=True)
        data = data[16 + size:]
"""


def test_a_store_through_a_mapping_shows_once_the_writer_has_closed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = source / "file"
    file.write_bytes(b"old" + bytes(mmap.PAGESIZE))
    with serving(tmp_path, str(source), *PUSH, "--path", "pool") as daemon:
        assert daemon.run("head", "-c", "3", daemon.path("file")).stdout == b"old"
        with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), mmap.PAGESIZE) as mapping:
            mapping[:3] = b"new"
        sync(daemon)
        assert daemon.run("head", "-c", "3", daemon.path("file")).stdout == b"new"
        shown = daemon.run("stat", "-c", "%y", daemon.path("file")).stdout
        assert shown == subprocess.check_output(["stat", "-c", "%y", file], timeout=DEADLINE_S)


def test_inotify_on_the_mount_sees_what_clients_do_and_not_what_is_pushed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("changed", "removed", "end"):
        (source / name).touch()
    with serving(tmp_path, str(source), *PUSH) as daemon:
        watched = [daemon.mountpoint, daemon.path("changed"), daemon.path("removed")]
        argv = [sys.executable, "-c", _INOTIFY, *watched]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watcher:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "ready\n"
            (source / "made").touch()
            (source / "changed").write_text("more")
            (source / "removed").unlink()
            sync(daemon)
            assert daemon.run("cat", daemon.path("changed")).stdout == b"more"
            daemon.run("cat", daemon.path("end"))
            events = watcher.communicate(timeout=DEADLINE_S)[0].splitlines()
    # IN_ACCESS, IN_CLOSE_NOWRITE and IN_OPEN, of the directory and of the file.
    assert {event.split()[0] for event in events} == {"1", "10", "20"}
    assert {event.partition(" ")[2] for event in events} == {"changed", "", "end"}


def test_what_lies_behind_a_mount_inside_the_source_shows_after_the_cache_timeout(
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    with kernel_mount("-t", "tmpfs", "tmpfs", str(source / "inner")):
        file = source / "inner" / "file"
        file.touch()
        with serving(tmp_path, str(source), *PUSH) as daemon:
            shown = daemon.path("inner", "file")
            assert daemon.run("stat", "-c", "%s", shown).stdout == b"0\n"
            file.write_bytes(b"more")
            assert eventually(lambda: daemon.run("stat", "-c", "%s", shown).stdout == b"4\n")


@requires("memory cgroup")
def test_the_kernel_gives_kept_names_back_when_memory_is_short(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(FILES):
        (source / f"{number}").touch()
    group = Path(memory_cgroups()) / f"zcfuse-names-{os.getpid()}"
    group.mkdir()
    limit = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"

    def nodes_left(daemon: Daemon) -> int:
        with contextlib.suppress(OSError):  # the kernel has more to give back
            (group / limit).write_text(str(NARROW_BYTES))
        return int(daemon.status()["datapath"]["directories"]["nodes"])

    try:
        with serving(tmp_path, str(source), *PUSH) as daemon:
            # The names that a process makes the kernel keep stay on its group's account. The limit
            # comes after its end: below a limit, the kernel kills whoever needs memory while names
            # that were given back wait for an RCU grace period.
            walk = f"echo $$ >{group}/cgroup.procs; exec find {daemon.mountpoint} -size +1"
            daemon.run("sh", "-c", walk)
            assert eventually(lambda: nodes_left(daemon) < FILES / 2)
    finally:
        group.rmdir()
