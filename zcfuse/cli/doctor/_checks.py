"""Probes what this machine offers to a mount. Each result names a remedy for a missing part.

Probes leave the machine as they found it. The probe of passthrough mounts an empty directory for a
moment, if it may. If a probe can only guess (from a kernel's release, without its configuration),
the text says so.
"""

import contextlib
import gzip
import os
import re
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum
from typing import Final

import msgspec

from zcfuse.admin.status import StatusDocument, StatusError, read_status
from zcfuse.audit import CountUnavailableError, cachestat, tracepoint_id
from zcfuse.bench import (
    ClientError,
    MountFailedError,
    client,
    filesystem_of,
    running,
    zcfuse_command,
)
from zcfuse.cli.mount import library_trouble
from zcfuse.linux import STACKED_TYPES
from zcfuse.reasons import reason_text

_KERNEL_PASSTHROUGH: Final = (6, 9)
_KERNEL_RING: Final = (6, 14)
_RING_PARAMETER: Final = "/sys/module/fuse/parameters/enable_uring"
_RINGS_DISABLED: Final = "/proc/sys/kernel/io_uring_disabled"
_PAGE: Final = 4096
# The reply's header, and one more page for each part of the file that begins or ends within one.
_SLOTS_BESIDES_DATA: Final = 4
_LARGEST_REPLY: Final = 1 << 20
_ENOUGH_WMEM: Final = 2 * _LARGEST_REPLY + 4096  # the kernel counts its own overhead, at most twice
_ENOUGH_MEMLOCK: Final = 64 << 20
_ANSWER_DEADLINE_S: Final = 10.0
_STACKED: Final = (*STACKED_TYPES, "fuse.fuse-overlayfs")


class State(StrEnum):
    """The result of a check."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


class Capability(IntEnum):
    """Capabilities that matter here, by number (capabilities(7))."""

    NET_ADMIN = 12
    IPC_LOCK = 14
    SYS_ADMIN = 21
    SYS_RESOURCE = 24


class Check(msgspec.Struct, frozen=True):
    """One line of `zcfuse doctor`: the finding, and a remedy if something is missing."""

    name: str
    state: State
    found: str
    remedy: str = ""


class Machine(msgspec.Struct, frozen=True):
    """Facts for several probes, read once. `capabilities` is the effective set as bits."""

    release: str
    version: tuple[int, int]
    uid: int
    capabilities: int
    config: str

    def has(self, capability: Capability) -> bool:
        """Whether this process may use `capability`."""
        return bool(self.capabilities >> capability & 1)

    def configured(self, option: str) -> str | None:
        """Return the value of a kernel option, "y", "m" or "n"; None if it is unknown."""
        if not self.config:
            return None
        found = re.search(rf"^{option}=([ym])$", self.config, re.MULTILINE)
        return found[1] if found else "n"


def this_machine() -> Machine:
    """Read the facts of the running kernel and of this process."""
    release = os.uname().release
    numbers = [int(number) for number in re.findall(r"\d+", release)[:2]]
    status = _read("/proc/self/status")
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return Machine(
        release=release,
        version=(numbers[0], numbers[1]),
        uid=os.geteuid(),
        capabilities=int(effective[1], 16) if effective else 0,
        config=_kernel_config(release),
    )


def _kernel_config(release: str) -> str:
    with contextlib.suppress(OSError), gzip.open("/proc/config.gz", "rt") as file:
        return file.read()
    return _read(f"/boot/config-{release}")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def check_kernel(machine: Machine) -> Check:
    """Check the kernel's release against the one that passthrough needs."""
    if machine.version >= _KERNEL_PASSTHROUGH:
        return Check("kernel", State.OK, machine.release)
    return Check(
        "kernel",
        State.LIMITED,
        machine.release,
        "passthrough needs Linux 6.9: on Debian 12 'apt-get install -t bookworm-backports "
        "linux-image-amd64'; until then splice, mmap and pool serve",
    )


def check_device(device: str = "/dev/fuse") -> Check:
    """Check that /dev/fuse exists and that this user may open it. Opening it mounts nothing."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        remedy = f"'modprobe fuse'; in a container start it with '--device {device}'"
        return Check(device, State.MISSING, "does not exist", remedy)
    except PermissionError:
        remedy = f"as root: 'chmod 666 {device}' (the default of distributions)"
        return Check(device, State.MISSING, "this user cannot open it", remedy)
    except OSError as error:
        remedy = f"'modprobe fuse'; 'ls -l {device}' should show a device 10, 229"
        return Check(device, State.MISSING, str(error.strerror), remedy)
    return Check(device, State.OK, "this user can open it")


def check_libfuse() -> Check:
    """Check that pyfuse3 and its libfuse3 load."""
    try:
        import pyfuse3
    except ImportError as error:
        return Check("libfuse3", State.MISSING, str(error), library_trouble(error))
    return Check("libfuse3", State.OK, f"pyfuse3 {pyfuse3.__version__} loads it")


def check_fusermount(machine: Machine) -> Check:
    """Check fusermount3, which ordinary users need to mount."""
    name = "fusermount3"
    program = shutil.which(name)
    if machine.has(Capability.SYS_ADMIN):
        return Check(name, State.OK, program or "not installed; root does not need it")
    if program is None:
        return Check(name, State.MISSING, "not installed", "'apt-get install fuse3'")
    with contextlib.suppress(OSError):
        if not os.stat(program).st_mode & stat.S_ISUID:
            remedy = f"as root: 'chmod u+s {program}', or reinstall fuse3"
            return Check(name, State.MISSING, f"{program} is not setuid root", remedy)
    return Check(name, State.OK, program)


def check_mount_helper(path: str = "/sbin/mount.fuse.zcfuse") -> Check:
    """Check the program that mount(8) runs for fstab and for ``mount -t fuse.zcfuse``."""
    name = "mount helper"
    if os.access(path, os.X_OK):
        return Check(name, State.OK, os.path.realpath(path))
    found = "is a broken link" if os.path.islink(path) else "does not exist"
    remedy = "for fstab and 'mount -t fuse.zcfuse': 'zcfuse setup' as root"
    return Check(name, State.LIMITED, f"{path} {found}", remedy)


def check_allow_other(machine: Machine, path: str = "/etc/fuse.conf") -> Check:
    """Check that this user may mount with `--allow-other`."""
    name = "--allow-other"
    if machine.has(Capability.SYS_ADMIN):
        return Check(name, State.OK, "root may use it")
    if re.search(r"^\s*user_allow_other\s*$", _read(path), re.MULTILINE):
        return Check(name, State.OK, f"permitted by user_allow_other in {path}")
    remedy = f"as root: put the line 'user_allow_other' in {path}"
    return Check(name, State.LIMITED, "only root may use it", remedy)


def check_passthrough(machine: Machine) -> Check:
    """Check kernel passthrough by a mount if one is permitted, otherwise from the kernel's data."""
    name = "passthrough"
    if machine.version < _KERNEL_PASSTHROUGH:
        remedy = "boot Linux 6.9 or later; splice serves until then"
        return Check(name, State.MISSING, f"not in Linux {machine.release}", remedy)
    if machine.configured("CONFIG_FUSE_PASSTHROUGH") == "n":
        remedy = "boot a kernel built with CONFIG_FUSE_PASSTHROUGH=y; splice serves until then"
        return Check(name, State.MISSING, "missing from this kernel", remedy)
    if not machine.has(Capability.SYS_ADMIN):
        remedy = "run the mount as root; splice serves an ordinary user"
        return Check(name, State.MISSING, "needs CAP_SYS_ADMIN in the daemon", remedy)
    reason = _tried_passthrough()
    if not reason:
        return Check(name, State.OK, "works (opened a file that way)")
    remedy = "'zcfuse status' names the reason for each file; splice serves where it fails"
    return Check(name, State.MISSING, reason, remedy)


@contextlib.contextmanager
def _probe_mount() -> Iterator[tuple[str, str]]:
    """Mount by passthrough; yield the mount point and the name of a file in it."""
    with tempfile.TemporaryDirectory(prefix="zcfuse-doctor-") as base:
        source, mountpoint = os.path.join(base, "source"), os.path.join(base, "mnt")
        os.mkdir(source)
        os.mkdir(mountpoint)
        with open(os.path.join(source, "file"), "wb") as file:
            file.write(bytes(_PAGE))
        command = zcfuse_command(source, mountpoint, ["--path", "passthrough"])
        with running(command, mountpoint) as mount:
            yield mount.mountpoint, "file"


def _tried_passthrough() -> str:
    """Return why a file did not open by passthrough; empty if it did."""
    try:
        with _probe_mount() as (mountpoint, name), client() as reader:
            reader.ask("open", path=os.path.join(mountpoint, name))
            status = _status(mountpoint).datapath or {}
    except (MountFailedError, ClientError, StatusError) as error:
        return str(error)
    opens, fallbacks = status.get("opens"), status.get("fallbacks")
    if isinstance(opens, dict) and opens.get("passthrough"):
        return ""
    given = fallbacks if isinstance(fallbacks, dict) else ()
    return ", ".join(map(reason_text, given)) or "not offered"


def _status(mountpoint: str) -> StatusDocument:
    deadline = time.monotonic() + _ANSWER_DEADLINE_S
    while True:
        try:
            return read_status(mountpoint)
        except StatusError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def check_ring(
    machine: Machine, parameter: str = _RING_PARAMETER, disabled: str = _RINGS_DISABLED
) -> Check:
    """Check FUSE over io_uring: built in, switched on, and io_uring itself permitted."""
    name = "FUSE over io_uring"
    value = _read(parameter).strip()
    if value in ("Y", "1"):
        # 1 forbids io_uring without CAP_SYS_ADMIN and outside of io_uring_group; 2 forbids it all.
        forbidden = _read(disabled).strip()
        if forbidden == "2" or (forbidden == "1" and not machine.has(Capability.SYS_ADMIN)):
            return Check(
                name,
                State.LIMITED,
                f"switched on, but kernel.io_uring_disabled is {forbidden}",
                "as root: 'sysctl -w kernel.io_uring_disabled=0', and the same in /etc/sysctl.d/ "
                "for good",
            )
        return Check(name, State.OK, "switched on")
    if not value:
        return Check(
            name,
            State.MISSING,
            f"not in Linux {machine.release}",
            "boot Linux 6.14 or later with CONFIG_FUSE_IO_URING=y; /dev/fuse serves too, slower "
            "for small requests",
        )
    for_good = (
        "put 'options fuse enable_uring=1' in /etc/modprobe.d/fuse.conf"
        if machine.configured("CONFIG_FUSE_FS") == "m"
        else "add 'fuse.enable_uring=1' to the kernel's command line"
    )
    remedy = f"as root: 'echo Y > {parameter}' until the next boot; for good {for_good}"
    return Check(name, State.LIMITED, "in the kernel, switched off", remedy)


def check_pipe(machine: Machine, path: str = "/proc/sys/fs/pipe-max-size") -> Check:
    """Check the largest pipe, which limits the largest reply that splices in one piece."""
    name = "pipe size"
    size = _number(path)
    if size is None:
        return Check(name, State.LIMITED, f"{path} cannot be read", "mount /proc")
    if machine.has(Capability.SYS_RESOURCE):
        return Check(name, State.OK, f"{_size(size)}, and CAP_SYS_RESOURCE may exceed it")
    pages = size // _PAGE - _SLOTS_BESIDES_DATA
    found = f"{_size(size)}: replies of up to {pages * _PAGE >> 10} KiB can be spliced"
    if pages * _PAGE >= _LARGEST_REPLY:
        return Check(name, State.OK, found)
    remedy = (
        "as root: 'sysctl -w fs.pipe-max-size=2097152' for replies of 1 MiB, and the same in "
        "/etc/sysctl.d/ for good; until then zcfuse asks for smaller requests"
    )
    return Check(name, State.LIMITED, found, remedy)


def check_memlock(machine: Machine) -> Check:
    """Check how much memory the mount may lock for buffers and windows."""
    name = "locked memory"
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if machine.has(Capability.IPC_LOCK):
        return Check(name, State.OK, f"limit {_limit(soft)}, and CAP_IPC_LOCK may exceed it")
    found = f"limit {_limit(soft)}" + (f" (at most {_limit(hard)})" if hard != soft else "")
    if soft == resource.RLIM_INFINITY or soft >= _ENOUGH_MEMLOCK:
        return Check(name, State.OK, found)
    remedy = (
        "put '* - memlock 65536' in /etc/security/limits.d/zcfuse.conf, or LimitMEMLOCK=64M in a "
        "systemd unit; beyond the limit zcfuse uses unlocked buffers, and status says so"
    )
    return Check(name, State.LIMITED, found, remedy)


def check_socket_buffer(machine: Machine, path: str = "/proc/sys/net/core/wmem_max") -> Check:
    """Check the largest socket buffer, which limits messages between data path and control."""
    name = "socket buffer"
    size = _number(path)
    if size is None:
        return Check(name, State.LIMITED, f"{path} cannot be read", "mount /proc")
    if machine.has(Capability.NET_ADMIN):
        return Check(name, State.OK, f"{_size(size)}, and CAP_NET_ADMIN may exceed it")
    if size >= _ENOUGH_WMEM:
        return Check(name, State.OK, _size(size))
    remedy = (
        "as root: 'sysctl -w net.core.wmem_max=4194304', and the same in /etc/sysctl.d/ for good; "
        "until then zcfuse negotiates smaller messages"
    )
    return Check(name, State.LIMITED, _size(size), remedy)


def check_request_size(path: str = "/proc/sys/fs/fuse/max_pages_limit") -> Check:
    """Check the largest request that the kernel's FUSE sends."""
    name = "largest request"
    pages = _number(path)
    if pages is None:
        return Check(name, State.OK, "1 MiB (this kernel has no max_pages_limit to change)")
    found = f"{pages} pages: {_size(pages * _PAGE)}"
    if pages * _PAGE >= _LARGEST_REPLY:
        return Check(name, State.OK, found)
    remedy = "as root: 'sysctl -w fs.fuse.max_pages_limit=256', and the same in /etc/sysctl.d/"
    return Check(name, State.LIMITED, found, remedy)


_CAPABILITY_USES: Final = {
    Capability.SYS_ADMIN: "mount(2), passthrough and the audit of requests",
    Capability.SYS_RESOURCE: "pipes larger than fs.pipe-max-size",
    Capability.IPC_LOCK: "locking more memory than the limit",
}


def check_capability(machine: Machine, capability: Capability) -> Check:
    """Check one capability, and say what it permits."""
    name = f"CAP_{capability.name}"
    use = _CAPABILITY_USES[capability]
    if machine.has(capability):
        return Check(name, State.OK, f"there: {use}")
    remedy = (
        f"in a container '--cap-add {capability.name}', in a systemd unit "
        f"AmbientCapabilities={name}"
        if machine.uid == 0
        else f"run as root, or AmbientCapabilities={name} in a systemd unit"
    )
    return Check(name, State.LIMITED, f"missing; it would permit {use}", remedy)


def check_tracepoints() -> Check:
    """Check whether `zcfuse copies` can count requests by the kernel's tracepoints."""
    name = "tracepoints"
    try:
        tracepoint_id("fuse:fuse_request_send")
    except CountUnavailableError as error:
        remedy = "run 'zcfuse copies' as root; otherwise it counts by the ledger alone"
        return Check(name, State.LIMITED, str(error), remedy)
    return Check(name, State.OK, "fuse:fuse_request_send can be counted")


def check_cachestat() -> Check:
    """Check cachestat(2); `zcfuse copies` uses it to find bytes cached twice."""
    name = "cachestat(2)"
    with tempfile.TemporaryFile() as file:
        try:
            cachestat(file.fileno())
        except OSError as error:
            remedy = "needs Linux 6.5; until then 'zcfuse copies' leaves that column out"
            return Check(name, State.LIMITED, str(error.strerror), remedy)
    return Check(name, State.OK, "works")


def check_abort(path: str = "/sys/fs/fuse/connections") -> Check:
    """Check fusectl, which can abort a stuck connection."""
    name = "fusectl"
    if os.path.ismount(path):
        return Check(name, State.OK, f"mounted on {path}")
    remedy = f"as root: 'mount -t fusectl fusectl {path}'; a forced unmount serves until then"
    return Check(name, State.LIMITED, f"not mounted on {path}", remedy)


def check_backing(source: str) -> Check:
    """Check whether the filesystem of `source` is itself stacked, which limits passthrough."""
    name = "backing filesystem"
    path = os.path.realpath(source)
    if not os.path.isdir(path):
        return Check(name, State.MISSING, f"{source}: not a directory", "name a directory")
    kind = filesystem_of(path)
    if kind in _STACKED:
        remedy = (
            "passthrough fails there with ELOOP: mount with --stack-depth 2 (then the mount cannot "
            "be a layer of an overlayfs), or keep the files on a volume"
        )
        return Check(name, State.LIMITED, f"{path} is on {kind}, a stacked filesystem", remedy)
    return Check(name, State.OK, f"{path} is on {kind}")


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 and not size % (1 << 20) else f"{size >> 10} KiB"


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else _size(value)


def checks(source: str) -> list[Check]:
    """Run every probe, in the order of the table."""
    machine = this_machine()
    probes: list[Callable[[], Check]] = [
        lambda: check_kernel(machine),
        check_device,
        check_libfuse,
        lambda: check_fusermount(machine),
        check_mount_helper,
        lambda: check_allow_other(machine),
        lambda: check_passthrough(machine),
        lambda: check_backing(source),
        lambda: check_ring(machine),
        lambda: check_pipe(machine),
        lambda: check_memlock(machine),
        lambda: check_socket_buffer(machine),
        check_request_size,
        *(
            lambda capability=capability: check_capability(machine, capability)
            for capability in _CAPABILITY_USES
        ),
        check_abort,
        check_tracepoints,
        check_cachestat,
    ]
    return [probe() for probe in probes]
