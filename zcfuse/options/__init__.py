"""The options of a mount: their values, their limits, and how users write them."""

from zcfuse.options._mount import (
    DEFAULT_ANSWER_TIMEOUT_S,
    DEFAULT_CACHE_TIMEOUT_S,
    DEFAULT_HOT_FILES,
    DEFAULT_LOCK_BUDGET,
    DEFAULT_UNMOUNT_WAIT_S,
    MOUNT_OPTIONS,
    NO_TIMEOUT_IF_IMMUTABLE,
    SERVING_PATHS,
    UNLIMITED_CACHE_TIMEOUT_S,
    MountOptions,
)
from zcfuse.options._option import Option, RefusedOptionError, parse_options
from zcfuse.options._text import parse_listen, parse_size, split_options

__all__ = [
    "DEFAULT_ANSWER_TIMEOUT_S",
    "DEFAULT_CACHE_TIMEOUT_S",
    "DEFAULT_HOT_FILES",
    "DEFAULT_LOCK_BUDGET",
    "DEFAULT_UNMOUNT_WAIT_S",
    "MOUNT_OPTIONS",
    "NO_TIMEOUT_IF_IMMUTABLE",
    "SERVING_PATHS",
    "UNLIMITED_CACHE_TIMEOUT_S",
    "MountOptions",
    "Option",
    "RefusedOptionError",
    "parse_listen",
    "parse_options",
    "parse_size",
    "split_options",
]
