from collections.abc import Sequence

MOST_THREADS: int
"""Config.threads: more threads only add memory, for each has a pipe and a buffer."""
WHOLE_FILE: int
"""As an extent's length: to the end of the file, wherever that is when it is read."""

class Config:
    """What the user decides about the data path."""

    path: str
    """One of auto, upcall, pool, mmap, splice, passthrough."""
    threads: int
    """Serving threads; 0: one a processor, 2 to 8."""
    stack_depth: int
    """Stacked filesystems below the mount that passthrough allows, 1 or 2."""
    lock_budget: int
    """Bytes that pool buffers and windows may lock in memory."""
    prefault: bool
    read_only: bool
    upcall_timeout: int
    """Seconds until an upcall is answered EIO in control's place."""
    message_bytes: int
    """The largest message between the planes, as upcall_pair() returned it; 0: no limit."""
    cache_timeout: int
    """Milliseconds for which the kernel may believe what a directory lease answers."""
    immutable: bool
    """What is told holds for ever; where all is leased the kernel is told to send no opens."""
    push: bool
    """Whether push_changes() may be called, which has changes pushed to the kernel."""
    fence_directory: str
    """For sync(): a directory that only this process writes to; "": there is no fence."""
    splice_min: int
    """Under auto, READs of fewer bytes are copied rather than spliced."""
    transport: str
    """One of auto, dev, uring."""
    passthrough_permitted: bool
    """Whether passthrough may be relied on: without it, auto serves mostly by splice."""
    source_stacked: bool
    """Whether the source lies on overlayfs or the like: no passthrough with stack_depth 1."""
    source_in_parts: bool
    """Whether most files are parts of files: none of those gets passthrough."""
    ring_depth: int
    """Requests that each CPU's ring queue holds at once, 1 to 64."""
    def __init__(self) -> None: ...

class DataPath:
    """The data plane of one mount: its channel, serving threads, leases and ledger.

    Takes both descriptors over, also when it raises. `device` is False when the channel is a
    SEQPACKET socket on whose other end somebody plays the kernel.

    Raises ValueError for an unknown path or transport, OSError where a system call fails, and
    RuntimeError where transport "uring" is not to be had.
    """

    def __init__(
        self, channel_fd: int, upcall_fd: int, config: Config, *, device: bool
    ) -> None: ...
    def set_abort(self, abort_file: str, mountpoint: bytes) -> None:
        """Set how a dying thread ends the connection: this file, else a forced lazy unmount."""
    def start(self) -> None: ...
    def ended_fd(self) -> int:
        """Return an eventfd that is readable once the connection has ended. Stays ours."""
    def end_reason(self) -> str:
        """Return "" while it runs, "unmounted", "aborted", "stopped", or what failed."""
    def install(
        self, nodeid: int, extents: Sequence[tuple[int, int, int]], path: str = ""
    ) -> tuple[str, str]:
        """Lease a node: its READs are answered from (descriptor, offset, length) from now on.

        A descriptor of -1 is a hole: so many zeros. Only the last length may be WHOLE_FILE. `path`
        is one of Config.path for this file alone; "": as the others are served. With "upcall"
        there is no lease, and READs go up.

        Returns the mode ("passthrough", "cached" or "upcall") and why it is not a better one.
        The descriptors are copied. Raises OSError where that fails, ValueError for an unknown path.
        """
    def would_serve(
        self, extents: Sequence[tuple[int, int, int]], path: str = ""
    ) -> tuple[str, str]:
        """Return what install() would now, of a file that is not open in another mode.

        The kernel is asked for passthrough; what it grants is given back, and nothing is counted.
        """
    def serves(self, nodeid: int) -> str:
        """Return how a node is served that is open or was a moment ago.

        "passthrough" or "cached"; "" where it is not open, or served by upcall.
        """
    def take_lock_budget(self, bytes: int) -> bool:
        """Take bytes from what may be locked in memory, whole or not at all."""
    def give_lock_budget(self, bytes: int) -> None:
        """Give back what take_lock_budget() took."""
    def revoke(self, nodeid: int) -> None: ...
    def lease_directory(self, nodeid: int, root_fd: int, kept: Sequence[bytes] = ()) -> None:
        """Answer for all below a node, which mirrors this directory, without an upcall.

        But for `kept`: paths from that directory, such as b"a/b", which are handed up with all that
        is below them.

        The descriptor (O_PATH will do) is copied. Not for what lies behind another mount. Leases a
        directory again that was revoked. Raises OSError where the kernel has no openat2 (Linux
        5.6) or the descriptor is no directory's.
        """
    def lease_union(self, nodeid: int, layers: Sequence[int | Source], sees_trusted: bool) -> None:
        """Answer for all below a node, which shows these layers merged, the first on top.

        A layer is a directory's descriptor, which is copied, or a source. The marks of overlayfs
        and of OCI images are understood, but for metacopy and redirect: what has these is handed
        up. Without `sees_trusted` (of `trusted.` attributes) the open of a file that is one hole is
        handed up as well. Otherwise as `lease_directory`.
        """
    def lease_catalogue(
        self,
        nodeid: int,
        sections: tuple[bytes, bytes, bytes, bytes],
        fd: int,
        version: tuple[int, int, int],
        *,
        first_ino: int,
        uid: int | None,
        gid: int | None,
    ) -> None:
        """Answer for all below a node, which shows the members of an archive.

        `sections` are the entries, nodes, pieces and names of its index and are copied, as is the
        archive's descriptor `fd` (-1: opens are handed up). `version` is the archive's size, mtime
        and ctime in ns: where they are others by now, opens are handed up. So are those of members
        that are not simply in the archive. All are owned by `uid` and `gid` unless these are None.
        """
    def lease_index(
        self,
        nodeid: int,
        *,
        uid: int,
        gid: int,
        made_ns: int,
        given: tuple[int | None, int | None, int | None, int | None, str] | None,
        key: int,
        time_ns: int,
    ) -> None:
        """Answer for the entries of a program's own directory; it holds none until index_put().

        All is owned by `uid` and `gid`, and has the time `made_ns`, unless it says otherwise.
        `given`, `key` and `time_ns` describe the directory itself, as in index_put().
        """
    def index_put(
        self,
        nodeid: int,
        directory: int,
        entries: Sequence[tuple[bytes, int, tuple[object, ...] | None, int, int, object]],
        time_ns: int,
    ) -> list[int]:
        """Hold entries in a directory of a node's index; return their numbers.

        Each is (name, kind, given, key, time in ns, value). `given` is mode, uid, gid and mtime in
        ns, None where none was given, and the serving path. Directory 0 is the root, kind 1 a
        directory, 2 a symlink to `value`, 3 a file of the terms in `value`, 4 what is handed up,
        with (type, inode number). A term is (kind, offset, length, source): of kind 0 a file by its
        path, 1 memory by its descriptor and whether it is all of it, 2 zeros, 3 a slice of the term
        behind it, 4 so many terms one behind the other.

        Raises OSError where a directory, a descriptor or a number is missing.
        """
    def index_remove(self, nodeid: int, directory: int, name: bytes, time_ns: int) -> None:
        """Hold nothing of this name any more."""
    def index_nodeid(self, nodeid: int, directory: int) -> int:
        """Return the nodeid of a directory of an index, 0 where the kernel does not know it."""
    def refuse_device(self, major: int, minor: int) -> None:
        """Leave whatever lies on this device, the mount's own, out of listings. Before start()."""
    def push_changes(self, nodeid: int) -> str:
        """Push each change below a leased directory to the kernel from now on.

        Returns "", or why not: "not_permitted", "filesystem" or "queue".
        """
    def sync(self, wait_ms: int) -> bool:
        """Wait until each change that returned before is pushed; False once `wait_ms` have passed.

        False as well where changes are not pushed. Not from the thread that answers upcalls.
        """
    def revoke_directory(self, nodeid: int) -> bool:
        """Hand up what comes about a directory and all below it; the kernel is told to ask again.

        Files that are open keep what serves them until they are released. Returns False for a
        directory that is not leased.
        """
    def drop_directory(self, nodeid: int) -> None:
        """End the lease of a directory that the kernel has forgotten; nothing else may know it.

        What was below it, if the kernel still asks, is handed up. No effect without a lease.
        """
    def describe(self, nodeid: int) -> list[tuple[int, bytes, int, int, int, int, int]]:
        """Say who a node below a leased directory is; [] where it is not known.

        Returns (nodeid, name, device as major << 32 | minor, inode number, time of birth in ns or
        0, S_IFMT bits, layer counted from the top) of it and of those above it, the leased
        directory first. The FORGET that ends any of them is handed up from now on.
        """
    def set_ino(self, nodeid: int, ino: int) -> None:
        """Set the st_ino that clients see of a node."""
    def drop_inos(self, nodeids: Sequence[int]) -> None: ...
    def invalidate_inode(self, nodeid: int, offset: int, length: int) -> int:
        """Drop the kernel's attributes and pages of a node. Returns 0 or -errno.

        Blocks while a request that concerns the inode is out: never call it from a handler.
        """
    def invalidate_entry(self, parent: int, name: bytes) -> int:
        """Drop a name from the kernel's cache. Returns 0 or -errno. Blocks like the other."""
    def statistics(self) -> dict[str, object]:
        """Return a snapshot of the ledger; zcfuse.datapath.Statistics gives it types."""
    def hot_files(self, most: int) -> list[tuple[int, int, int, int, int, bytes]]:
        """Say which files are asked for most: so many by requests, and as many by bytes.

        Each is (nodeid, opens, reads, bytes, the nodeid of the leased directory above it, its path
        from there): the nodeid itself and b"" for a node of control's, 0 for one that is not known
        any more. What is counted is what was seen since the file came into the sketch, which has
        room for some hundred files: never too much. Reads of a passthrough file are not seen.
        """
    def expect_end(self) -> None:
        """Announce that the connection is about to end because we want it to."""
    def stop(self) -> bool:
        """End all threads, after the unmount. Returns False when one had to be left behind."""

class Source:
    """What answers for a subtree: names, attributes, extents. Immutable, for any thread."""

def index_source(
    sections: tuple[bytes, bytes, bytes, bytes],
    fd: int,
    version: tuple[int, int, int],
    *,
    first_ino: int,
    uid: int | None,
    gid: int | None,
) -> Source:
    """Return the source that shows an index; the arguments are those of `lease_catalogue`.

    Raises OSError where the descriptor cannot be copied.
    """

def upcall_pair(message_bytes: int) -> tuple[int, int, int]:
    """Return (our end, pyfuse3's end, the largest message in bytes that the socket takes)."""

def arm_faults(text: str) -> bool:
    """Replace the faults to inject (sys/faults.hpp has the format); "" for none. For tests."""
