"""Linux interfaces that Python lacks: mounts, mappings, statx, capabilities, perf events.

Only this package uses ctypes. Nothing here knows of trees or of FUSE requests.
"""

from zcfuse.linux._arguments import hide_in_arguments
from zcfuse.linux._connection import abort_file, set_read_ahead
from zcfuse.linux._files import (
    AT_EMPTY_PATH,
    AT_STATX_DONT_SYNC,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    STACKED_TYPES,
    Attributes,
    Status,
    device_number,
    is_stacked,
    openat2,
    statx,
)
from zcfuse.linux._handles import nodeid_of
from zcfuse.linux._inotify import Inotify
from zcfuse.linux._mapping import PAGE_BYTES, Mapping, data_ranges, may_ask, whole_pages
from zcfuse.linux._mount_api import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    LONGEST_STRING,
    Setting,
    cloned_mount,
    new_mount,
    put_at,
)
from zcfuse.linux._mount_probe import Answer, probe
from zcfuse.linux._mount_table import FSTYPE, MountEntry, mount_at, read_mounts, resolve_mountpoint
from zcfuse.linux._mounting import KernelMount, MountError, adopt, attach, check_device, unmount
from zcfuse.linux._namespaces import enter_mount_namespace
from zcfuse.linux._near import NEAR_MOUNTS
from zcfuse.linux._privileges import (
    Capability,
    has_initial_capability,
    lockable_bytes,
    process_may_administer,
)
from zcfuse.linux._residency import Residency, cached_twice, cachestat
from zcfuse.linux._syscalls import detach_mountpoint, detached_mount, perf_event_open
from zcfuse.linux._users import User, users_of

__all__ = [
    "ATTR_NODEV",
    "ATTR_NOEXEC",
    "ATTR_NOSUID",
    "ATTR_RDONLY",
    "AT_EMPTY_PATH",
    "AT_STATX_DONT_SYNC",
    "FSTYPE",
    "LONGEST_STRING",
    "NEAR_MOUNTS",
    "PAGE_BYTES",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "STACKED_TYPES",
    "Answer",
    "Attributes",
    "Capability",
    "Inotify",
    "KernelMount",
    "Mapping",
    "MountEntry",
    "MountError",
    "Residency",
    "Setting",
    "Status",
    "User",
    "abort_file",
    "adopt",
    "attach",
    "cached_twice",
    "cachestat",
    "check_device",
    "cloned_mount",
    "data_ranges",
    "detach_mountpoint",
    "detached_mount",
    "device_number",
    "enter_mount_namespace",
    "has_initial_capability",
    "hide_in_arguments",
    "is_stacked",
    "lockable_bytes",
    "may_ask",
    "mount_at",
    "new_mount",
    "nodeid_of",
    "openat2",
    "perf_event_open",
    "probe",
    "process_may_administer",
    "put_at",
    "read_mounts",
    "resolve_mountpoint",
    "set_read_ahead",
    "statx",
    "unmount",
    "users_of",
    "whole_pages",
]
