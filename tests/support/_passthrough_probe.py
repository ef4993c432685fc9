"""Asks the kernel for passthrough, without zcfuse: ``python _passthrough_probe.py DIR``.

Prints ``ok``, or why a file in DIR cannot be the backing file of a passthrough open. It mounts in a
new mount namespace, plays the daemon for one INIT and exits, which ends the mount.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys
import tempfile

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE = 16384, 1 << 18
# include/uapi/linux/fuse.h: the second half of the flags starts at bit 32.
FUSE_INIT_EXT = 1 << 30
FUSE_PASSTHROUGH_HIGH = 1 << (37 - 32)
FUSE_DEV_IOC_BACKING_OPEN = (1 << 30) | (16 << 16) | (229 << 8) | 1
HEADER = struct.Struct("=IIQQIIII")
INIT_IN = struct.Struct("=IIIII")
INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")


def checked(result: int, what: str) -> None:
    """Raise for a C call that failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount_privately(device: int, mountpoint: str) -> None:
    """Mount `device` in a private namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.unshare(CLONE_NEWNS), "unshare")
    checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-rprivate")
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    target = os.fsencode(mountpoint)
    checked(libc.mount(b"probe", target, b"fuse", 0, options.encode()), "mount")


def negotiate(device: int) -> str:
    """Answer INIT with passthrough; return the reason for a refusal, or an empty string."""
    if not select.select([device], [], [], 5)[0]:
        return "the kernel sent no INIT within 5 s"
    message = os.read(device, 1 << 17)
    unique = HEADER.unpack_from(message)[2]
    _, minor, readahead, flags, high = INIT_IN.unpack_from(message, HEADER.size)
    if not flags & FUSE_INIT_EXT or not high & FUSE_PASSTHROUGH_HIGH:
        return "the kernel does not offer FUSE_PASSTHROUGH (Linux 6.9 with CONFIG_FUSE_PASSTHROUGH)"
    body = INIT_OUT.pack(
        7, minor, readahead, FUSE_INIT_EXT, 12, 9, 4096, 1, 1, 0, FUSE_PASSTHROUGH_HIGH, 1
    )
    os.write(device, struct.pack("=IiQ", 16 + len(body), 0, unique) + body)
    return ""


def main(directory: str) -> str:
    """`ok`, or the reason."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    with tempfile.TemporaryDirectory() as mountpoint, tempfile.TemporaryFile(dir=directory) as file:
        mount_privately(device, mountpoint)
        try:
            reason = negotiate(device)
            if not reason:
                backing = struct.pack("=iIQ", file.fileno(), 0, 0)
                fcntl.ioctl(device, FUSE_DEV_IOC_BACKING_OPEN, backing)
        finally:
            ctypes.CDLL(None).umount2(os.fsencode(mountpoint), 2)
    return reason or "ok"


if __name__ == "__main__":
    try:
        print(main(sys.argv[1]))
    except OSError as error:
        print(error)
