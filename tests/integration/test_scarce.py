"""Memory, descriptors or the disk under the source run out; the daemon answers or ends cleanly."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.conftest import kernel_mount, write
from tests.support import Daemon, Mounter, requires
from tests.support._capabilities import memory_cgroups
from tests.support._user import CHECKOUT

pytestmark = requires("root", "fuse")

WAIT_S: Final = 60
NAMES: Final = 200_000
MIB: Final = 1 << 20
PASS: Final = "import os, sys; print(sum(1 for _ in os.scandir(sys.argv[1])))"
# Every descriptor of a client is an open directory or file of the mount.
HOLD: Final = """
import os, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1024), hard))
held = []
try:
    while True:
        held.append(os.open(sys.argv[1] + ("/file" if len(held) % 2 else "/few"), os.O_RDONLY))
except OSError:
    print(len(held), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """A source with a directory of many names."""
    source = tmp_path / "wide"
    (source / "many").mkdir(parents=True)
    write(str(source), "file", b"bytes")
    (source / "few").mkdir()
    for number in range(NAMES // 100):
        (source / "many" / f"name-{number}-{'x' * 200}").touch()
    return str(source)


@contextlib.contextmanager
def memory_group(daemon: Daemon) -> Iterator[str]:
    """A cgroup with the daemon in it."""
    group = os.path.join(memory_cgroups(), f"zcfuse-{daemon.pid}")
    os.mkdir(group)
    try:
        Path(group, "cgroup.procs").write_text(str(daemon.pid))
        yield group
    finally:
        daemon.kill()
        end = time.monotonic() + WAIT_S
        while os.path.exists(group):
            with contextlib.suppress(OSError):
                os.rmdir(group)
            assert time.monotonic() < end, "the group stays busy"


def limit_memory(group: str, size: int) -> None:
    """Let the group's processes have `size` bytes more than they have charged to it."""
    for used, limit in (
        ("memory.current", "memory.max"),
        ("memory.usage_in_bytes", "memory.limit_in_bytes"),
    ):
        if os.path.exists(os.path.join(group, limit)):
            now = int(Path(group, used).read_text())
            Path(group, limit).write_text(str(now + size))


@requires("memory cgroup")
def test_a_daemon_that_the_kernel_kills_for_memory_leaves_clients_an_error(
    mounted: Mounter, wide: str
) -> None:
    daemon = mounted("--no-directory-lease", source=wide)
    with memory_group(daemon) as group:
        limit_memory(group, MIB // 4)
        hold = (
            "import os, sys\nheld = []\nwhile True:\n"
            "    held.append(os.scandir(sys.argv[1])); next(held[-1])"
        )
        client = daemon.run(
            sys.executable, "-c", hold, daemon.path("many"), check=False, timeout=WAIT_S
        )
        assert b"OSError" in client.stderr or b"Error: [Errno" in client.stderr
        assert daemon.fails() == -9
    found = daemon.run("stat", daemon.mountpoint, check=False)
    assert b"not connected" in found.stderr
    subprocess.run(
        [sys.executable, "-m", "zcfuse", "umount", daemon.mountpoint],
        check=True,
        timeout=WAIT_S,
        cwd=CHECKOUT,
    )
    assert daemon.mount is None


def starve(daemon: Daemon) -> None:
    """Use the mount while the daemon cannot get any address space."""
    with open(f"/proc/{daemon.pid}/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_AS)
    resource.prlimit(daemon.pid, resource.RLIMIT_AS, (now, before[1]))
    for _ in range(3):
        for argv in (
            [sys.executable, "-c", PASS, daemon.path("many")],
            ["cat", daemon.path("file")],
            ["stat", daemon.path("file")],
        ):
            daemon.run(*argv, check=False)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, before)


def test_a_daemon_without_address_space_fails_requests_and_goes_on(
    mounted: Mounter, wide: str
) -> None:
    daemon = mounted(source=wide)
    starve(daemon)
    found = daemon.run(sys.executable, "-c", PASS, daemon.path("many"))
    assert int(found.stdout) == len(os.listdir(os.path.join(wide, "many")))
    daemon.unmount()


def test_a_control_plane_without_address_space_ends_the_mount_cleanly_or_goes_on(
    mounted: Mounter, wide: str
) -> None:
    """libfuse cannot go on without its buffer; clients must not wait for it."""
    daemon = mounted("--no-directory-lease", source=wide)
    starve(daemon)
    if daemon.mount is not None:
        assert daemon.run("cat", daemon.path("file")).stdout == b"bytes"
        daemon.unmount()
    else:
        assert daemon.fails() == 1


@requires("loop", "page cache eviction")
def test_an_image_that_is_cut_below_the_source_is_an_input_error(
    mounted: Mounter, tmp_path: Path
) -> None:
    image, source = tmp_path / "image", tmp_path / "shown"
    source.mkdir()
    with open(image, "wb") as file:
        file.truncate(32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, timeout=WAIT_S)
    with kernel_mount("-o", "loop", str(image), str(source)):
        write(str(source), "large", os.urandom(16 * MIB))
        write(str(source), "small", b"bytes")
        subprocess.run(["sync", "-f", str(source)], check=True, timeout=WAIT_S)
        daemon = mounted("--path", "pool", source=str(source))
        assert daemon.run("cat", daemon.path("small")).stdout == b"bytes"
        fd = os.open(source / "large", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        os.truncate(image, MIB)
        found = daemon.run("cat", daemon.path("large"), check=False, timeout=WAIT_S)
        assert b"Input/output error" in found.stderr
        assert daemon.run("cat", daemon.path("small")).stdout == b"bytes"
        daemon.unmount()


def test_status_and_unmount_work_while_clients_hold_all_descriptors(
    mounted: Mounter, wide: str
) -> None:
    daemon = mounted("--no-directory-lease", source=wide)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (256, 256))
    with contextlib.ExitStack() as ends:
        for _ in range(2):
            client = ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD, daemon.mountpoint],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            ends.callback(client.kill)
            assert client.stdout is not None
            assert int(client.stdout.readline()) > 0
        assert daemon.status()["pid"] == daemon.pid
        command = [sys.executable, "-m", "zcfuse", "umount", "--force", daemon.mountpoint]
        subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S, cwd=CHECKOUT)
        assert daemon.mount is None
        assert daemon.wait() == 0
