"""The rows, columns, sinks and cache states of `zcfuse bench transfer`, by name."""

from typing import Final

import msgspec

from zcfuse.bench._targets import BACKING

COLUMNS: Final = (BACKING, "naive", "pool", "mmap", "splice", "passthrough")
SOCKETS: Final = ("tcp", "unix")
SINKS: Final = (*SOCKETS, "null", "file")
SINK_LABELS: Final = {
    "tcp": "a loopback TCP socket",
    "unix": "a Unix socket",
    "null": "/dev/null",
    "file": "a file",
}
CACHES: Final = ("cold", "served", "warm")
CACHE_LABELS: Final = {
    "cold": "the file is in no page cache",
    "served": "the backing file is in the page cache, the mount has nothing of it",
    "warm": "the file is in the page cache, the mount's too where it has one",
}


class Method(msgspec.Struct, frozen=True):
    """A row: its name in `--methods`, its title in tables, and its possible sinks."""

    name: str
    label: str
    sinks: tuple[str, ...] = ("tcp", "unix", "null")


METHODS: Final = (
    Method("read+write", "read + write"),
    Method("mmap+write", "mmap + write"),
    Method("sendfile", "sendfile"),
    Method("splice", "splice"),
    Method("splice-move", "splice, SPLICE_F_MOVE"),
    Method("uring-splice", "io_uring splice"),
    Method("uring-fixed", "io_uring READ_FIXED + SEND_ZC"),
    Method("zerocopy-send", "send, MSG_ZEROCOPY"),
    Method("vmsplice", "vmsplice + splice"),
    Method("direct+write", "O_DIRECT read + write"),
    Method("copy-file-range", "copy_file_range", ("file",)),
)
