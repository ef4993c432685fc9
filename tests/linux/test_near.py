"""Near mounts: what the table says, and that a new mount is noticed."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support import requires
from zcfuse.linux import AT_EMPTY_PATH, statx
from zcfuse.linux._near import NearMounts

PROGRAM = """
import os, subprocess, sys
from zcfuse.linux._near import NearMounts
place = sys.argv[1].encode()
mounts = NearMounts()
print(mounts.far_above(place + b"/a/b"), mounts.far_named(b"here"))
subprocess.run(["mount", "-t", "proc", "none", place + b"/here"], check=True, timeout=20)
found = mounts.far_above(place + b"/here/a/b")
print(found is not None, found == mounts.far_named(b"here"), mounts.is_near(found))
print(mounts.far_above(place + b"/hereafter"))
subprocess.run(["umount", place + b"/here"], check=True, timeout=20)
print(mounts.far_above(place + b"/here/a/b"), mounts.is_near(found))
"""


@requires("root")
def test_a_mount_that_comes_and_goes_is_noticed(tmp_path):
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    assert done.stdout.split("\n")[:4] == ["None None", "True True False", "None", "None False"]


def test_proc_is_far_and_an_unknown_mount_too():
    fd = os.open("/proc", os.O_PATH)
    try:
        mount = statx(fd, b"", AT_EMPTY_PATH).mount
    finally:
        os.close(fd)
    assert not NearMounts().is_near(mount)
    assert not NearMounts().is_near(0)
