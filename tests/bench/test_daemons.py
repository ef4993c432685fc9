"""Running a FUSE daemon: what it leaves behind, and how it fails."""

import os
import sys

import pytest

from tests.support._capabilities import requires
from tests.support._kernel import find_mount as kernel_find_mount
from zcfuse.bench import MountFailedError, client, running, zcfuse_command
from zcfuse.bench._daemons import find_mount

MOUNTINFO = (
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
    "40 22 0:44 / /mnt/with\\040space ro - fuse.zcfuse zcfuse ro,user_id=0\n"
    "41 22 0:45 / /mnt/with\\040space ro - fuse.other other ro,user_id=0\n"
)


def test_the_topmost_mount_is_found_by_its_unescaped_name():
    assert find_mount("/mnt/with space", MOUNTINFO) == ("fuse.other", 45)
    assert find_mount("/", MOUNTINFO) == ("ext4", 254 << 20)
    assert find_mount("/mnt", MOUNTINFO) is None


def test_the_last_line_of_a_daemon_that_does_not_mount_is_the_reason(mountpoint: str):
    script = (
        "import sys; print('first', flush=True); print('the reason', file=sys.stderr); sys.exit(3)"
    )
    with (
        pytest.raises(MountFailedError, match="the reason"),
        running([sys.executable, "-c", script], mountpoint),
    ):
        pytest.fail("it does not mount")


def test_a_silent_daemon_is_named_by_its_exit_status(mountpoint: str):
    with (
        pytest.raises(MountFailedError, match="exit status 3"),
        running([sys.executable, "-c", "raise SystemExit(3)"], mountpoint),
    ):
        pytest.fail("it does not mount")


def test_a_program_that_is_not_there_is_a_failure_to_mount(mountpoint: str):
    with (
        pytest.raises(MountFailedError, match="No such file"),
        running(["/nonexistent/program"], mountpoint),
    ):
        pytest.fail("it does not mount")


@requires("mounting")
def test_a_mount_is_there_in_the_block_and_gone_after_it(source: str, mountpoint: str):
    with open(os.path.join(source, "file"), "wb") as file:
        file.write(b"12345")
    with (
        running(zcfuse_command(source, mountpoint, ["--path", "naive"]), mountpoint) as mount,
        client() as reader,
    ):
        assert reader.ask("open", path=mount.path("file")) == 5
        found = kernel_find_mount(mountpoint)
        assert found is not None
        assert found.connection == mount.device
    assert kernel_find_mount(mountpoint) is None


@requires("mounting")
def test_a_mount_is_gone_also_when_the_block_fails(source: str, mountpoint: str):
    with (
        pytest.raises(RuntimeError, match="of the block"),
        running(zcfuse_command(source, mountpoint, ["--path", "naive"]), mountpoint),
    ):
        raise RuntimeError("of the block")
    assert kernel_find_mount(mountpoint) is None
