"""A mount on demand, as systemd creates it from x-systemd.automount: by the kernel's autofs."""

import os
import subprocess
import sys

from tests.cli.conftest import DEADLINE_S
from tests.support import requires
from tests.support._user import CHECKOUT

# Plays systemd: holds an autofs mount, and mounts when the kernel reports the first access. It runs
# mount(8) in its own process group, as systemd does, because other processes wait until that ends.
AUTOMOUNTER = """
import ctypes, fcntl, os, struct, subprocess, sys
source, mountpoint, *mount = sys.argv[1:]
READY = 0x9360
reader, writer = os.pipe()
os.setpgid(0, 0)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
if libc.mount(b"zcfuse-tests", mountpoint.encode(), b"autofs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
control = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
client = subprocess.Popen(
    ["cat", f"{mountpoint}/greeting"], start_new_session=True, stdout=subprocess.PIPE
)
packet = os.read(reader, 512)
token = struct.unpack_from("I", packet, 8)[0]
done = subprocess.run([*mount, source, mountpoint], capture_output=True, text=True)
fcntl.ioctl(control, READY, token)
print(done.returncode, done.stderr, client.communicate(timeout=10)[0])
os.close(control)
"""


@requires("root", "private mounts", "fuse", "autofs")
def test_who_comes_first_to_an_automount_finds_the_mount(source, mountpoint):
    with open(f"{source}/greeting", "w") as file:
        file.write("hello")
    mount = [sys.executable, "-m", "zcfuse", "mount"]
    script = '"$@"; "$0" -m zcfuse umount "$MOUNTPOINT"; umount "$MOUNTPOINT"'
    unshare = ["unshare", "--mount", "--propagation", "private"]
    automounter = [sys.executable, "-c", AUTOMOUNTER, source, mountpoint, *mount]
    result = subprocess.run(
        [*unshare, "sh", "-c", script, sys.executable, *automounter],
        env={**os.environ, "PYTHONPATH": CHECKOUT, "MOUNTPOINT": mountpoint},
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
    )
    assert result.stdout == "0  b'hello'\n", result
    assert result.stderr == ""
