"""The machine of a report: the facts that a reader needs to compare figures."""

import importlib.metadata
import os
import platform
import re
from typing import Final

import msgspec

from zcfuse.bench._rounds import filesystem_of

_SETTINGS: Final = (
    "/proc/sys/fs/pipe-max-size",
    "/proc/sys/net/core/optmem_max",
    "/proc/sys/net/core/wmem_default",
    "/proc/sys/net/ipv4/tcp_wmem",
    "/proc/sys/kernel/io_uring_disabled",
    "/sys/module/fuse/parameters/enable_uring",
    "/sys/kernel/mm/transparent_hugepage/enabled",
)
_PACKAGES: Final = ("zcfuse", "pyfuse3", "trio", "nanobind")


class Machine(msgspec.Struct, frozen=True):
    """Kernel, processor, memory in bytes, filesystem, versions by name, and kernel settings."""

    kernel: str
    architecture: str
    cpu: str
    cpus: int
    memory: int
    filesystem: str
    versions: dict[str, str]
    settings: dict[str, str]


def describe_machine(source: str) -> Machine:
    """Describe this machine and the filesystem of `source`."""
    return Machine(
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=_cpu(),
        cpus=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        filesystem=filesystem_of(os.path.realpath(source)),
        versions=_versions(),
        settings={path: text for path in _SETTINGS if (text := _text(path))},
    )


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())
    except OSError:
        return ""


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    except OSError:
        return "unknown"
    return found[1] if found else "unknown"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "glibc": platform.libc_ver()[1]}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
