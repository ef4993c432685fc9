"""Probes this machine's capabilities for the tests, without zcfuse.

Every probe runs at most once, in bounded time, and returns the reason for a missing capability, or
an empty string. `offers_everything` decides whether a skip is a failure (see ``_plugin.py``).
"""

import ctypes
import functools
import importlib.util
import os
import platform
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.support._user import ordinary_user

CAP_IPC_LOCK: Final = 14
CAP_SYS_ADMIN: Final = 21
# The first kernel with passthrough, the newest feature that the tests need.
FULL_KERNEL: Final = (6, 9)
SKIP_PREFIX: Final = "requires "
# Programs that read a mount in the tests, by command name.
PROGRAMS: Final = (
    *("nginx", "wrk", "haproxy", "redis-server", "sqlite3", "git", "rsync", "samtools", "fio"),
)
_SYS_IO_URING_SETUP: Final = 425
_DEADLINE_S: Final = 20
_LOCKED_BYTES: Final = 8 << 20


class UnknownCapabilityError(Exception):
    """A test asked for a capability that does not exist: a mistake in the test."""


@dataclass(frozen=True, slots=True)
class _Capability:
    """`probe` returns why it is missing, or an empty string.

    `may_be_missing`: a machine with all other capabilities may lack it, for an external reason (a
    kernel option, a package that the Makefile's `test` does not install).
    """

    probe: Callable[[], str]
    may_be_missing: bool


def _root() -> str:
    if os.geteuid() != 0:
        return "not root"
    return "" if _has(CAP_SYS_ADMIN) else "root without CAP_SYS_ADMIN"


def _has(capability: int) -> bool:
    """Whether it is effective: capabilities(7)."""
    with open("/proc/self/status") as file:
        effective = re.search(r"^CapEff:\s*([0-9a-f]+)", file.read(), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> capability & 1)


def _locked_memory() -> str:
    """The lock limit of every user since Linux 5.16; some containers have the older 64 KiB."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or hard >= _LOCKED_BYTES or _has(CAP_IPC_LOCK):
        return ""
    return f"'ulimit -H -l' allows {hard >> 10} KiB, less than {_LOCKED_BYTES >> 10}"


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = re.findall(r"\d+", platform.release())[:2]
    return int(major), int(minor)


def _kernel(wanted: tuple[int, int]) -> Callable[[], str]:
    def probe() -> str:
        if kernel_version() < wanted:
            return f"the kernel is {platform.release()}, older than {wanted[0]}.{wanted[1]}"
        return ""

    return probe


def _fuse() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return ""


def _mounting() -> str:
    """A mount of any kind by this user."""
    if _fuse():
        return _fuse()
    if not _root():
        return ""
    return _program("fusermount3")()


def _program(name: str) -> Callable[[], str]:
    def probe() -> str:
        return "" if shutil.which(name) else f"{name} is not installed"

    return probe


def _package(name: str) -> Callable[[], str]:
    def probe() -> str:
        found = importlib.util.find_spec(name)
        return "" if found is not None else f"the Python package {name} is not installed"

    return probe


def _mergerfs() -> str:
    """The program, and for an ordinary user its fusermount, which Debian installs without
    setuid."""
    helper = shutil.which("mergerfs-fusermount")
    if _program("mergerfs")() or not _root():
        return _program("mergerfs")()
    if helper is None or not os.stat(helper).st_mode & stat.S_ISUID:
        return f"mounts for root only: {helper or 'mergerfs-fusermount'} is not setuid"
    return ""


def _passthrough() -> str:
    if _root():
        return _root()
    script = os.path.join(os.path.dirname(__file__), "_passthrough_probe.py")
    result = _output([sys.executable, script, tempfile.gettempdir()])
    return "" if result == "ok" else result


def _private_mounts() -> str:
    return _root() or _tried("unshare", "--mount", "--propagation", "private", "true")


def _tracepoints() -> str:
    """The fuse events, in a private tracefs, because the system may not mount one."""
    script = 'mount -t tracefs none "$0" && test -r "$0"/events/fuse/fuse_request_send/id'
    with tempfile.TemporaryDirectory() as directory:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, directory]
        return _root() or _tried(*command)


def _overlay() -> str:
    """A filesystem that is itself stacked, as a container's root is."""
    script = (
        'cd "$0" && mkdir a b u w && mount -t tmpfs t b && mkdir b/u b/w'
        " && mount -t overlay -o lowerdir=a,upperdir=b/u,workdir=b/w o u"
    )
    with tempfile.TemporaryDirectory() as directory:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, directory]
        return _root() or _tried(*command)


def _overlay_layers() -> str:
    """The kernel's overlayfs on the filesystem of the tests' files."""
    script = 'cd "$0" && mkdir a b m && mount -t overlay -o ro,lowerdir=a:b o m'
    with tempfile.TemporaryDirectory() as directory:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, directory]
        return _root() or _tried(*command)


def _erofs() -> str:
    """EROFS from a file on the filesystem of the tests."""
    with open("/proc/filesystems") as file:
        known = "erofs" in file.read().split()
    return _root() or _kernel((6, 12))() or ("" if known else "the kernel has no EROFS")


def _verity() -> str:
    """fs-verity in the kernel."""
    known = os.path.exists("/sys/fs/ext4/features/verity")
    return "" if known else "the kernel has no fs-verity"


def _rings() -> str:
    """FUSE over io_uring in the kernel, on or off."""
    if not os.path.exists("/sys/module/fuse/parameters/enable_uring"):
        return "the kernel has no FUSE over io_uring"
    return _root()


def _autofs() -> str:
    with open("/proc/filesystems") as file:
        known = "autofs" in file.read().split()
    return _root() or ("" if known else "the kernel has no autofs")


def _eviction() -> str:
    """A filesystem that can drop its page cache, unlike tmpfs."""
    with tempfile.NamedTemporaryFile() as file:
        os.write(file.fileno(), bytes(4096))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except BlockingIOError:
            return ""
        except OSError as error:
            return f"RWF_NOWAIT in {tempfile.gettempdir()}: {error.strerror}"
    return f"files in {tempfile.gettempdir()} stay in the page cache"


def _loop() -> str:
    """A filesystem in a file."""
    with tempfile.TemporaryDirectory() as directory:
        script = (
            'cd "$0" && truncate -s 16M i && mkfs.ext4 -q i && mkdir m && mount -o loop i m'
            " && umount m"
        )
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, directory]
        return _root() or _tried(*command)


def memory_cgroups() -> str:
    """The directory in which groups with a limit of memory can be made, or ""."""
    for directory, file in (
        ("/sys/fs/cgroup", "memory.max"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ):
        probe = os.path.join(directory, f"zcfuse-probe-{os.getpid()}")
        try:
            os.mkdir(probe)
        except OSError:
            continue
        try:
            if os.access(os.path.join(probe, file), os.W_OK):
                return directory
        finally:
            os.rmdir(probe)
    return ""


def _memory_cgroup() -> str:
    return _root() or ("" if memory_cgroups() else "no cgroup with a limit of memory can be made")


def _rings_of_programs() -> str:
    """io_uring_setup(2), which some containers forbid."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(_SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    if ring < 0:
        return f"io_uring_setup: {os.strerror(ctypes.get_errno())}"
    os.close(ring)
    return ""


def _acl() -> str:
    with tempfile.NamedTemporaryFile() as file:
        return _program("setfacl")() or _tried("setfacl", "-m", "u:65534:r", file.name)


def _xattr() -> str:
    with tempfile.NamedTemporaryFile() as file:
        try:
            os.setxattr(file.name, "user.zcfuse", b"1")
        except OSError as error:
            return f"user.* attributes in {tempfile.gettempdir()}: {error.strerror}"
    return ""


def _ordinary_user() -> str:
    if os.geteuid() != 0:
        return _mounting()
    try:
        with ordinary_user() as user:
            result = user.run("test", "-w", "/dev/fuse", timeout=_DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if result.returncode == 0 else "/dev/fuse cannot be opened to an ordinary user"


def _bare_system() -> str:
    made = os.environ.get("ZCFUSE_BARE_SYSTEM") == "yes"
    return "" if made else "only in a system that was made for the test"


_CAPABILITIES: Final[dict[str, _Capability]] = {
    "root": _Capability(_root, False),
    "fuse": _Capability(_fuse, False),
    "mounting": _Capability(_mounting, False),
    "fusermount3": _Capability(_program("fusermount3"), False),
    "kernel 6.5": _Capability(_kernel((6, 5)), False),  # cachestat(2)
    "kernel 6.9": _Capability(_kernel(FULL_KERNEL), False),
    "private mounts": _Capability(_private_mounts, False),
    "ordinary user": _Capability(_ordinary_user, False),
    "locked memory": _Capability(_locked_memory, False),
    "acl": _Capability(_acl, False),
    "xattr": _Capability(_xattr, False),
    # `make test` installs these.
    **{
        name: _Capability(_program(name), False)
        for name in (*PROGRAMS, "curl", "fsck.erofs", "strace")
    },
    # Kernel options, or the filesystem of the temporary directory.
    "passthrough": _Capability(_passthrough, True),
    "tracepoints": _Capability(_tracepoints, True),
    "overlay": _Capability(_overlay, True),
    "overlay layers": _Capability(_overlay_layers, True),
    "erofs": _Capability(_erofs, True),
    "fs-verity": _Capability(_verity, True),
    "fuse-overlayfs": _Capability(_program("fuse-overlayfs"), True),
    "autofs": _Capability(_autofs, True),
    "loop": _Capability(_loop, True),
    "memory cgroup": _Capability(_memory_cgroup, True),
    "io_uring": _Capability(_rings, True),
    # For systems other than Debian, and for a machine that only runs zcfuse.
    **{name: _Capability(_program(name), True) for name in ("make", "cc")},
    "man": _Capability(_program("man"), True),
    "systemd-analyze": _Capability(_program("systemd-analyze"), True),
    "page cache eviction": _Capability(_eviction, True),
    "io_uring calls": _Capability(_rings_of_programs, True),
    # `make bench` installs these.
    "mergerfs": _Capability(_mergerfs, True),
    "bindfs": _Capability(_program("bindfs"), True),
    # Drivers and servers of remote sources, and what reads them.
    **{
        name: _Capability(_package(name), True)
        for name in (
            *("fsspec", "aiohttp", "s3fs", "moto", "distributed", "paramiko"),
            *("safetensors", "zarr"),
        )
    },
    "sshd": _Capability(_program("sshd"), True),
    # `make test-install` makes one.
    "bare system": _Capability(_bare_system, True),
    # `make proof` installs these.
    "java": _Capability(_program("javac"), True),
    "debootstrap": _Capability(_program("debootstrap"), True),
    "pytorch": _Capability(_package("torch"), True),
    "grpcio": _Capability(_package("grpc"), True),
    "pyarrow": _Capability(_package("pyarrow"), True),
    "duckdb": _Capability(_package("duckdb"), True),
}


@functools.cache
def missing(name: str) -> str:
    """Why this machine lacks capability `name`; an empty string if it has it."""
    try:
        return _CAPABILITIES[name].probe()
    except KeyError:
        raise UnknownCapabilityError(f"{name!r} is none of {sorted(_CAPABILITIES)}") from None


def requires(*names: str) -> pytest.MarkDecorator:
    """Mark a test, a class or (as ``pytestmark``) a module that needs these capabilities.

    If one is missing, the test is skipped with the reason.
    """
    for name in names:
        if name not in _CAPABILITIES:
            raise UnknownCapabilityError(f"{name!r} is none of {sorted(_CAPABILITIES)}")
    return pytest.mark.requires(*names)


def skip_unless(*names: str) -> None:
    """`requires` for a fixture, or for a test that learns its needs late."""
    for name in names:
        reason = missing(name)
        if reason:
            pytest.skip(f"{SKIP_PREFIX}{name}: {reason}")


def offers_everything() -> bool:
    """Whether no test should skip: root with all rights, and a kernel with passthrough."""
    return not _root() and kernel_version() >= FULL_KERNEL and not _fuse()


def expected(skip_reason: str) -> bool:
    """Whether a skip is acceptable on a machine that offers everything."""
    if not skip_reason.startswith(SKIP_PREFIX):
        return False
    name = skip_reason.removeprefix(SKIP_PREFIX).partition(":")[0]
    return name in _CAPABILITIES and _CAPABILITIES[name].may_be_missing


def _tried(*command: str) -> str:
    """Run `command`; return an empty string on success, otherwise its last line or status."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = result.stderr.strip().splitlines()
    return "" if result.returncode == 0 else (lines or [f"{command[0]}: {result.returncode}"])[-1]


def _output(command: list[str]) -> str:
    """The last line of `command`'s output, or its error."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = (result.stdout or result.stderr).strip().splitlines()
    return lines[-1] if lines else f"{command[0]} printed nothing"
