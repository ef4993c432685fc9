"""The options of a mount: their values, their limits, and how users write them."""

from zcfuse.options._mount import (
    COHERENCES,
    DEFAULT_ANSWER_TIMEOUT_S,
    DEFAULT_CACHE_TIMEOUT_S,
    DEFAULT_HOT_FILES,
    DEFAULT_LOCK_BUDGET,
    DEFAULT_UNMOUNT_WAIT_S,
    NO_TIMEOUT_IF_IMMUTABLE,
    SERVING_PATHS,
    TRANSPORTS,
    UNLIMITED_CACHE_TIMEOUT_S,
    MountOptions,
    known_options,
    parse_listen,
    parse_mount_options,
    parse_size,
    split_options,
)

__all__ = [
    "COHERENCES",
    "DEFAULT_ANSWER_TIMEOUT_S",
    "DEFAULT_CACHE_TIMEOUT_S",
    "DEFAULT_HOT_FILES",
    "DEFAULT_LOCK_BUDGET",
    "DEFAULT_UNMOUNT_WAIT_S",
    "NO_TIMEOUT_IF_IMMUTABLE",
    "SERVING_PATHS",
    "TRANSPORTS",
    "UNLIMITED_CACHE_TIMEOUT_S",
    "MountOptions",
    "known_options",
    "parse_listen",
    "parse_mount_options",
    "parse_size",
    "split_options",
]
