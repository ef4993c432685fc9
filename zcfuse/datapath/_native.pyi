from collections.abc import Callable, Iterable, Sequence
from typing import Any

REASONS: tuple[str, ...]
"""The codes of Statistics.fallbacks and other reasons; zcfuse.reasons has their words."""
WHOLE_FILE: int
"""As an extent's length: to the end of the file at the time of the read."""
OWN_BIT: int
"""Marks the node ids and file handles that the data path made."""
HOLDER_GO: str
HOLDER_HANDOVER: str
HOLDER_HANDOVERS: int
HOLDER_MESSAGE: str
HOLDER_STATE: str
HOLDER_UNKNOWN: int
IMPLICIT_BIT: int
"""Marks a file handle without an open; the rest of it is a node id."""
MADE_INO_BIT: int
"""Marks the inode number of an entry that has no file."""
BLOCK_BYTES: int
"""st_blksize of an entry that has no file."""
NAME_BYTES: int
OPAQUE_NAME: bytes
WHITEOUT_PREFIX: bytes
"""The longest name, as on most filesystems."""
SECTOR_BYTES: int
"""The unit of st_blocks (stat(2))."""
DEPTH_LIMIT: int
"""Real paths are shorter; outsiders' renames can leave remembered parents that form a cycle."""
MESSAGE_BYTES: int
"""The largest message between kernel and data path."""
MOST_THREADS: int
"""The most useful Config.threads: further ones only cost memory, a pipe and a buffer each."""
MOST_DEATHS: int
"""Of daemons in a row during one request; then that gets EIO (DataPath.watch_requests)."""
SUSPECTS_BYTES: int
"""The size of the file for DataPath.watch_requests()."""
ORPHAN_PREFIX: str
"""Of the names under which the holder keeps files without a name (DataPath.connect_holder)."""
MOST_STACK_DEPTH: int
"""Config.stack_depth: the kernel supports no deeper stack."""
ENTRY_FORMAT: str
NODE_FORMAT: str
PIECE_FORMAT: str
"""The records of an archive's index, in the notation of the struct module."""
MEMBER_KINDS: tuple[int, int, int, int, int, int, int, int, int, int]
"""Of an archive's members: directory, file, sparse, symlink, deflated, bzip2, lzma, streamed,
streamed sparse, unreadable."""
ENTRY_KINDS: tuple[int, int, int, int, int]
"""For index_put(): directory, symlink, blob, forwarded, missing."""
TERM_KINDS: tuple[int, int, int, int, int]
"""For index_put(): file, memory, zeros, slice, concatenation."""

class Config:
    """The settings of the data path."""

    path: str
    """One of auto, upcall, pool, mmap, splice, passthrough."""
    threads: int
    """Serving threads; 0: one per processor, 2 to 8."""
    stack_depth: int
    """Stacked filesystems below the mount that passthrough allows, 1 or 2."""
    lock_budget: int
    """Bytes that pool buffers and windows may lock in memory."""
    prefault: bool
    hot_files: int
    read_only: bool
    shared: bool
    control_tasks: int
    upcall_timeout: int
    """Seconds after which the data path answers an upcall with EIO in control's place."""
    message_bytes: int
    """The largest message between the planes, as upcall_pair() returned it; 0: no limit."""
    cache_timeout: int
    """Milliseconds for which the kernel may cache a directory lease's answers."""
    immutable: bool
    silent_opens: bool
    """Answers hold without limit. If the whole tree is leased, the kernel sends no opens."""
    push: bool
    """Whether push_changes() may be called."""
    fence_directory: str
    """For sync(): a directory that only this process writes to; "" for no fence."""
    splice_min: int
    """Under auto, READs of fewer bytes are copied rather than spliced."""
    transport: str
    """One of auto, dev, uring."""
    passthrough_permitted: bool
    """Whether passthrough is permitted; without it, auto serves mostly by splice."""
    source_stacked: bool
    """Whether the source lies on overlayfs or the like; stack_depth 1 then excludes passthrough."""
    source_in_parts: bool
    """Whether most files are parts of files, which excludes passthrough."""
    ring_depth: int
    """Requests that each CPU's ring queue holds at once, 1 to 64."""
    def __init__(self) -> None: ...

class SurvivingState:
    """What outlives a daemon: nodes, handles, what INIT agreed on, and control's records.

    It lies in memory that another process can take by descriptors. One process uses it at a time.
    """

    LAYOUT: int
    """The layout of the memory. A process takes only a state of its own layout."""
    @staticmethod
    def create() -> SurvivingState:
        """Return an empty state. Raises OSError."""
    @staticmethod
    def attach(fds: Sequence[int]) -> SurvivingState:
        """Take the state of a process that has ended and was reaped, by copies of its fds().

        Raises ValueError, saying what is wrong, for a state that is damaged or of another layout.
        """
    @staticmethod
    def layout_of(fd: int) -> int:
        """Return the layout of another process's state from the first of its fds()."""
    def fds(self) -> list[int]:
        """Return the state's descriptors, which stay its own, in a fixed order and number."""
    @property
    def generation(self) -> int:
        """The number of processes that have taken it."""
    @property
    def negotiated(self) -> bool:
        """Whether INIT was answered."""
    @property
    def init_request(self) -> bytes:
        """The kernel's INIT request with its header; b"" before it came."""
    @property
    def resent(self) -> int:
        """The number of requests that came again after resend(), in all processes."""
    def resent_by_operation(self) -> dict[str, int]: ...
    def roots(self) -> list[tuple[int, str]]:
        """Return (nodeid, kind) of each leased directory, the kind as of its source.

        One of directory, overlay, index, filter. A successor leases them again.
        """
    def append(self, record: bytes) -> None:
        """Keep a record of control's, of 1 MiB at most.

        A successor finds it whole or not at all. Raises OSError: EMSGSIZE, ENOSPC.
        """
    def records(self) -> list[bytes]: ...
    def replace_records(self, records: Sequence[bytes]) -> None:
        """Keep these records in place of all others. A successor finds the old or the new ones."""

class DataPath:
    """The data plane of one mount: its channel, serving threads, leases and ledger.

    Takes over both descriptors, even if it raises. `device` is False if the channel is a SEQPACKET
    socket to a test's fake kernel.

    Raises ValueError for an unknown path or transport, OSError if a system call fails, and
    RuntimeError if transport "uring" is unavailable.
    """

    def __init__(
        self,
        channel_fd: int,
        upcall_fd: int,
        config: Config,
        *,
        device: bool,
        state: SurvivingState | None = None,
        clones: Sequence[int] = (),
    ) -> None:
        """Make a data path that goes on with what an earlier process left in `state`, if any.

        With a state it serves by /dev/fuse alone: by the channel and by `clones` of it, which it
        takes over. Whoever holds the state for a successor holds those descriptors too, since the
        kernel fails the requests read from a descriptor with its last copy. ValueError for another
        transport.
        """
    def set_abort(self, abort_file: str, mountpoint: bytes) -> None:
        """Set how a dying thread ends the connection: by this file, or by a forced lazy unmount."""
    def set_mountpoint(self, mountpoint: bytes) -> None:
        """Set where changes are pushed to, in place of set_abort()."""
    def start(self) -> None:
        """Start the threads.

        A successor first shows control's library the INIT that its predecessor had. Lease the
        directories of the state's roots() before: nothing is read until now.
        """
    def connect_holder(self, socket: int) -> None:
        """Have the holder at the other end of a socket keep files that lose their last name.

        It keeps each under ORPHAN_PREFIX and its nodeid, for a successor. Copies the socket. Call
        it before start(). Raises OSError.
        """
    def inherit_orphan(self, nodeid: int, file: int) -> None:
        """Take such a file of an earlier process. Copies the descriptor. Call it before start()."""
    def resend(self) -> None:
        """Have the kernel send again each request that was read and not answered.

        Call it before start(): a request that is sent again while a thread works on it is served
        twice. The process that read them must be reaped. Raises OSError.
        """
    def ended_fd(self) -> int:
        """Return the data path's eventfd, which is readable once the connection has ended."""
    def end_reason(self) -> str:
        """Return "" while it runs, "unmounted", "aborted", "stopped", or the failure."""
    def install(
        self,
        nodeid: int,
        extents: Sequence[tuple[int, int, int]],
        path: str = "",
        presence: Presence | None = None,
    ) -> tuple[str, str]:
        """Lease a node: its READs are answered from (descriptor, offset, length) from now on.

        A descriptor of -1 is a run of zeros. Only the last length may be WHOLE_FILE. `path` is one
        of Config.path for this file alone; "" means the mount's. With "upcall" READs go up without
        a lease. READs of what a `presence` does not show go up, too.

        Returns the mode ("passthrough", "cached" or "upcall") and the code of the reason against a
        better one. Copies the descriptors. Raises OSError if that fails, ValueError for an unknown
        path.
        """
    def would_serve(
        self, extents: Sequence[tuple[int, int, int]], path: str = ""
    ) -> tuple[str, str]:
        """Return the result that install() would have now, if the file is not open in another mode.

        Asks the kernel for passthrough, releases the grant and counts nothing.
        """
    def watch_requests(self, file: int) -> list[tuple[int, int, int]]:
        """Note the requests under way in a file of SUSPECTS_BYTES that outlives this process.

        Call it before start(). Returns (operation's number, nodeid, deaths) of those that were
        under way when earlier processes died. With MOST_DEATHS a request gets EIO.
        """
    def serves(self, nodeid: int) -> str:
        """Return how an open, or recently closed, node is served.

        "passthrough" or "cached"; "" if it is closed or served by upcall.
        """
    def take_lock_budget(self, bytes: int) -> bool:
        """Reserve bytes of the lock budget, all or none; return whether that succeeded."""
    def give_lock_budget(self, bytes: int) -> None:
        """Give back what take_lock_budget() took."""
    def revoke(self, nodeid: int) -> None: ...
    def lease_directory(self, nodeid: int, root_fd: int, kept: Sequence[bytes] = ()) -> None:
        """Answer without upcalls for everything below a node that mirrors this directory.

        `kept` are paths from that directory, such as b"a/b"; requests for them, and for everything
        below them, are forwarded.

        Copies the descriptor (O_PATH suffices). Other mounts below the node are not leased. Undoes
        a revoke. Raises OSError if the kernel has no openat2 (Linux 5.6) or the descriptor is no
        directory's.
        """
    def lease_union(
        self,
        nodeid: int,
        layers: Sequence[int | Source],
        sees_trusted: bool,
        work: int = -1,
        metacopies: bool = False,
        redirects: bool = False,
    ) -> None:
        """Answer for everything below a node that shows these layers merged, the first on top.

        A layer is a directory's descriptor, which is copied, or a source. The data path understands
        the marks of overlayfs and OCI images. It forwards requests for a metacopy or a redirect
        that must not be followed, and for all of them once changes are pushed. If the process does
        not see `trusted.` attributes (`sees_trusted`), it also forwards opens of files that are one
        hole. `work` makes the first layer one that clients change. With `metacopies` a change of
        attributes copies no bytes there, and with `redirects` clients may rename directories of
        lower layers. Otherwise like `lease_directory`.
        """
    def lease_pool(
        self,
        nodeid: int,
        branches: Sequence[int],
        refusals: tuple[int, int, int],
        asks: bool = False,
    ) -> None:
        """Answer for everything below a node that shows these directories as a pool.

        `refusals` are the errnos that a removal, a rename and the opening of an existing file for
        writing get; 0 permits them. With `asks` it forwards one that `permit` did not permit. A new
        file without a decision of `place` is forwarded.
        Otherwise like `lease_directory`.
        """
    def place(self, nodeid: int, name: bytes | None, branch: int, valid_ms: int | None) -> bool:
        """Say which branch of a pool gets the next file `name` of a directory.

        Without a name: all new files of the directory, for so many milliseconds, or until the mount
        ends. False: the node is no directory of a pool, or is gone.
        """
    def permit(self, nodeid: int, change: int, name: bytes | None, valid_ms: int | None) -> bool:
        """Let a client change the file `name` of a directory once; `change` counts as `refusals`.

        Without a name: all changes in the directory, for so many milliseconds, or until the mount
        ends. For a write the node is the file, whatever the name. False: likewise.
        """
    def lease_archive(
        self,
        nodeid: int,
        index: MemberIndex,
        fd: int,
        *,
        first_ino: int,
        uid: int | None,
        gid: int | None,
    ) -> None:
        """Answer for everything below a node that shows an archive's members.

        Shares `index`, and copies the archive's descriptor `fd` (-1: hand opens up). Opens are
        forwarded if the archive's version differs now, or if it does not hold the member's bytes as
        they are. `uid` and `gid` own all members, unless None.
        """
    def lease_source(self, nodeid: int, source: Source) -> None:
        """Answer for everything below a node by a source."""
    def filter_lease(self, nodeid: int, patterns: NamePatterns, above: bytes) -> None:
        """Filter what is leased at a node, before the kernel hears of it; OSError for no lease.

        `above` is the path of the node from where the patterns count.
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
        asks: bool = False,
    ) -> None:
        """Answer for the entries of a program's directory, which index_put() adds.

        `uid`, `gid` and `made_ns` are the defaults for the entries' owner, group and time. `given`,
        `key`, `time_ns` and `asks` describe the directory itself, as in index_put().
        """
    def index_put(
        self,
        nodeid: int,
        directory: int,
        entries: Sequence[tuple[bytes, int, tuple[object, ...] | None, int, int, object]],
        time_ns: int,
        *,
        uid: int | None = None,
        valid_ms: int | None = None,
    ) -> list[int]:
        """Put entries into a directory of a node's index; return their numbers.

        Each is (name, kind, given, key, time in ns, value). `given` is mode, uid, gid and mtime in
        ns, each a value or None, and the serving path. Directory 0 is the root. Kind 1 is a
        directory, and its `value` says whether a policy answers for it, and whether a directory of
        that name stays. Kind 2 is a symlink to `value`, 3 a file of the terms in `value`; kind 4 is
        forwarded, and its `value` is (type, inode number); kind 5 is a name that is missing. A term
        is (kind, offset, length, source). Its kind 0 is a file by path, 1 memory by descriptor and
        whether it is all of it, 2 zeros, 3 a slice of the next term, 4 a concatenation of the next
        terms, by their number.

        In a policy's directory the entries are answers for `uid`, or for everyone, and control is
        asked again after `valid_ms`. Raises OSError where a directory, a descriptor or a number is
        missing.
        """
    def index_list(
        self,
        nodeid: int,
        directory: int,
        entries: Sequence[tuple[bytes, int, tuple[object, ...] | None, int, int, object]],
        time_ns: int,
        *,
        uid: int | None,
        valid_ms: int | None,
        complete: bool,
    ) -> list[int]:
        """Put the names of a policy's directory as index_put() does, and list those.

        Kind 0 is a name whose answer may be there already, and else is forwarded. `complete`: the
        data path answers that all other names are missing.
        """
    def index_drop(self, nodeid: int, directory: int, name: bytes, uid: int | None) -> None:
        """Remove a policy's answer."""
    def index_ino(self, nodeid: int, number: int) -> int:
        """Return the inode number that clients see of an entry, 0 if its files are missing."""
    def index_remove(self, nodeid: int, directory: int, name: bytes, time_ns: int) -> None:
        """Remove an entry from a directory of a node's index, and a policy's leased listings.

        With an empty name the listings alone.
        """
    def index_nodeid(self, nodeid: int, directory: int) -> int:
        """Return the nodeid of a directory of an index, 0 if the kernel does not know it."""
    def refuse_device(self, major: int, minor: int) -> None:
        """Leave files on the mount's device out of listings. Call it before start()."""
    def push_changes(self, nodeid: int, strict: bool) -> str:
        """Push each change below a leased directory to the kernel from now on.

        `strict`: the kernel keeps no bytes of files, and a file's attributes only while the data
        path has a read lease on it. Returns "", or the code of the reason why that fails.
        """
    def freshness(self, nodeid: int) -> str:
        """Return how long the kernel may keep the answers about a node below a leased directory.

        Returns "timed", "fixed", "pushed", "strict" or "names" (names as pushed, attributes as
        timed), "" for another node.
        """
    def user_descriptors(self) -> UserDescriptors:
        """Return the users' shares of descriptors, which both planes count in."""
    def sync(self, wait_ms: int) -> bool:
        """Wait until all earlier changes are pushed; return False after `wait_ms`.

        Also returns False if changes are not pushed. Never call it in the thread that answers
        upcalls.
        """
    def revoke_directory(self, nodeid: int) -> bool:
        """Forward requests for a directory and everything below it, and make the kernel ask again.

        Open files keep their leases until they are released. Returns False for a directory that is
        not leased.
        """
    def drop_directory(self, nodeid: int) -> None:
        """End the lease of a directory that the kernel has forgotten.

        Later requests for nodes below it are forwarded. Does nothing without a lease.
        """
    def describe(self, nodeid: int) -> list[tuple[int, bytes, int, int, int, int, int]]:
        """Describe a node below a leased directory; [] if it is unknown.

        Returns (nodeid, name, device as major << 32 | minor, inode number, time of birth in ns or a
        hash of the file handle, S_IFMT bits, layer counted from the top) of the nodes from the
        leased directory down to this one. Forwards their last FORGETs from now on.
        """
    def set_ino(self, nodeid: int, ino: int) -> None:
        """Set the st_ino that clients see of a node."""
    def drop_inos(self, nodeids: Sequence[int]) -> None: ...
    def invalidate_inode(self, nodeid: int, offset: int, length: int) -> int:
        """Drop the kernel's attributes and pages of a node. Returns 0 or -errno.

        Blocks during requests for the inode, so never call it from a handler.
        """
    def invalidate_entry(self, parent: int, name: bytes) -> int:
        """Drop a name from the kernel's cache. Returns 0 or -errno. Blocks like the other."""
    def statistics(self) -> dict[str, object]:
        """Return a snapshot of the ledger; zcfuse.datapath.Statistics gives it types."""
    def hot_files(self, most: int) -> list[tuple[int, int, int, int, int, bytes]]:
        """Return the `most` files with the most requests, and as many with the most bytes.

        Each is (nodeid, opens, reads, bytes, the nodeid of the leased directory above it, its path
        from there): the nodeid itself and b"" for a node of control's, 0 for a forgotten one.
        Counts start when the file enters the sketch, which has room for some hundred files, and
        never overstate. They exclude reads by passthrough.
        """
    def trace(self, most: int) -> None:
        """Note each request that is answered from now on; 0: no more.

        Each thread has room for `most` bytes of events between two drains. What was noted before
        and not drained is dropped.
        """
    def drain_trace(self) -> tuple[bytes, int, bytes, list[int]]:
        """Return what was noted since the last call: packed events, and how many were lost.

        Then the packed places of the nodes in them, each below a leased directory, and the nodeids
        of these directories.
        """
    @staticmethod
    def operations() -> list[str]:
        """Return the names of the kernel's operations, by their numbers."""
    def expect_end(self) -> None:
        """Announce an intended end of the connection."""
    def stop(self) -> bool:
        """End all threads, after the unmount. Returns False if it had to leave one behind."""
    def leave(self) -> bool:
        """End all threads, and leave the mount and its state as they are to a successor.

        Requests under way get no answer from this process. Returns False if a successor must wait
        until this process has ended.
        """

class Presence:
    """Which pieces of a file that is being fetched are there. For any thread; all hidden at first.

    Parameters:
        pieces: their number.
        piece_bytes: the size of each but the last. Raises ValueError for 0.
    """

    def __init__(self, pieces: int, piece_bytes: int) -> None: ...
    def show(self, first: int, stop: int) -> None:
        """Let the data path read the pieces [first, stop)."""
    def hide(self, first: int, stop: int) -> None:
        """Have READs of the pieces [first, stop) go to Python."""

class Source:
    """Answers for a subtree: names, attributes, extents. Immutable, for any thread."""

_Attributes = tuple[int, int, int, int, int, int, int, int, int, int, int, int]

class SourceDirectory:
    """An open directory of a native source, or a mounted file. For any thread.

    A name is one component; b"" stands for the directory itself. An identity is 20 bytes from
    `find`; if the name leads to another file by now, methods raise OSError with ESTALE. They return
    None if the file lies on another mount; `enter` also if the path leads through one. They follow
    no symbolic link (ELOOP).
    """

    def enter(self, path: bytes) -> SourceDirectory | None:
        """Open the directory at a path below this one."""
    def find(self, name: bytes) -> tuple[bytes, _Attributes] | None:
        """Look a name up; return its identity and the values of `Attributes`."""
    def status(self, name: bytes, identity: bytes) -> _Attributes | None:
        """Return the values of `Attributes`."""
    def open(self, name: bytes, identity: bytes) -> int | None:
        """Open a regular file for reading; the descriptor is the caller's.

        Raises OSError: EISDIR for a directory, ESTALE for other kinds, EAGAIN while another process
        has a lease (fcntl(2)) on it.
        """
    def read_link(self, name: bytes, identity: bytes) -> bytes | None:
        """Return the target of a symbolic link."""
    def get_xattr(self, name: bytes, identity: bytes, attribute: bytes) -> bytes | None:
        """Return an extended attribute."""
    def list_xattrs(self, name: bytes, identity: bytes) -> list[bytes] | None:
        """Return the names of the extended attributes."""
    def names(self) -> dict[bytes, int]:
        """Return the names in the directory without the dots, each with its d_type."""
    def fileno(self) -> int:
        """Return its O_PATH descriptor, which it owns."""

def open_directory(fd: int, numbers_of: int, walks: bool = False) -> SourceDirectory:
    """Return the root of the source that shows a descriptor's directory or file.

    Takes the descriptor over (O_PATH suffices), also if it fails. Inode numbers of the device
    `numbers_of` (major << 32 | minor) are shown unchanged. `walks`: go name by name, without
    openat2(2). Raises OSError.
    """

def search_layers(
    parts: Iterable[object], roots_below: Callable[[int], Iterable[object]], name: bytes
) -> tuple[tuple[Any, ...], Any, str]:
    """Search a merged directory for a name, as the data path searches its own layers.

    A part has `layer.index`, from the top, and `look(name)`, which returns an entry. An entry has
    `attributes`, `directory()`, which opens it as a part, and where its marks are: `own_name` in
    the SourceDirectory `at`, or None.

    Parameters:
        parts: what each layer has of the directory, the topmost first.
        roots_below: returns the roots of the layers below one, by its index.

    Returns:
        The entries of a directory in all layers, or that of another file. Then the entry with the
        bytes of a metacopy, or None, and the reason why the rest is refused, or "".

    Raises OSError: ENOENT where no layer shows the name; whatever `look` raises.
    """

def packed_identity(ino: int, birth: int, type: int) -> bytes:
    """Return an identity as `SourceDirectory.find` does; `type` is the S_IFMT bits of the mode."""

def shown_xattrs(names: list[bytes]) -> list[bytes]:
    """Return the names of extended attributes of a layer as clients see them.

    The marks are hidden, and those of an overlayfs inside the layer have its names.
    """

def backing_xattr(name: bytes) -> bytes:
    """Return the name that a layer has for an extended attribute that a client asks for."""

def is_reserved(name: bytes) -> bool:
    """Say whether OCI layers keep a name for whiteouts, so that it is never shown."""

class MemberIndex:
    """The index of an archive. Immutable, for any thread.

    `sections` are the entries, nodes, pieces and names, which it copies. `version` is the archive's
    size in bytes, mtime and ctime in ns. Nodes are numbers, 0 the root. Methods raise OSError: EIO
    for numbers of the index that cannot be right.
    """

    def __init__(
        self, sections: tuple[bytes, bytes, bytes, bytes], version: tuple[int, int, int]
    ) -> None: ...
    def lookup(self, directory: int, name: bytes) -> int | None:
        """Return the node of a name, or None. Raises OSError: ENOTDIR, ENAMETOOLONG."""
    def names(self, directory: int, start: int, most: int) -> list[tuple[bytes, int]]:
        """Return `most` names with their nodes from number `start` on, in order of their bytes."""
    def member(self, node: int) -> tuple[int, int, int, int, int, int, int, int, int, int]:
        """Return kind, mode, uid, gid, nlink, mtime_ns, size, place, stored bytes and detail."""
    def attributes(
        self, node: int, *, first_ino: int, uid: int | None, gid: int | None
    ) -> tuple[int, int, int, int, int, int, int, int, int, int, int, int]:
        """Return the values of `Attributes`, in order."""
    def target(self, node: int) -> bytes:
        """Return the target of a symbolic link; EINVAL for other nodes."""
    def runs(self, node: int) -> list[tuple[int | None, int]]:
        """Return (offset in the archive, length) of a file's parts; the offset of a hole is None.

        Raises OSError: EIO also for a member that the archive does not hold as it is.
        """
    def source(self, fd: int, *, first_ino: int, uid: int | None, gid: int | None) -> Source:
        """Return a source that shows the members; for the arguments see `lease_archive`.

        Raises OSError if it cannot copy the descriptor.
        """
    @property
    def bytes(self) -> int:
        """Memory that it takes."""

class UserDescriptors:
    """How many descriptors users may have the process keep for open files. For any thread.

    The process may have `descriptors`; `next` is the lowest that is free now. Each user of a
    `shared` mount may have half of what is free, the user of a private one all. A reserve for root
    and for Python itself does not count as free. Root has no limit.
    """

    def __init__(self, descriptors: int, next: int, shared: bool) -> None: ...
    def admits(self, uid: int) -> bool:
        """Say whether a user may open a further file."""
    def take(self, uid: int, count: int) -> None:
        """Count descriptors for a user."""
    def give(self, uid: int, count: int) -> None:
        """Count descriptors of a user no more."""
    def spares(self, uid: int, fd: int) -> bool:
        """Say whether a user's file may have this descriptor, or it belongs to the reserve."""

class NamePatterns:
    """Which names a filter shows, and as what. Immutable, for any thread.

    `hide` and `show` are globs, `rename` pairs of an old and a new name. Raises ValueError for what
    is none.
    """

    def __init__(
        self, hide: Sequence[bytes], show: Sequence[bytes], rename: Sequence[tuple[bytes, bytes]]
    ) -> None: ...
    def hides(self, above: bytes, name: bytes, directory: bool) -> bool:
        """Say whether a name is hidden in the directory at the path `above`, b"" for the root."""
    def renames(self) -> bool:
        """Say whether there are new names."""
    def shown(self, name: bytes) -> bytes:
        """Return as what a name is shown."""
    def originals(self, name: bytes) -> list[bytes]:
        """Return the names that would be shown as this one; the first that is there counts."""

def filter_source(source: int | Source, patterns: NamePatterns, above: bytes) -> Source:
    """Return the source that shows another one, or the directory of a descriptor, filtered.

    `above` is the path of its root from where the patterns count.
    """

class ErofsImage:
    """A frozen image: inodes, names and places by node id. Immutable, for any thread.

    Nothing of the image is trusted. Each method raises OSError: EIO for what does not fit, ENOTDIR,
    EISDIR or EINVAL for an inode of another type.

    Parameters:
        fd: of the image, which is copied. Raises OSError: EIO for a superblock that is not EROFS's.
        device_sizes: in bytes, of the files that pieces lie in, from device 1 on.
        pieces: the offset and the size in bytes of the table of pieces.
        content: a number of all bytes of the image, by which a successor knows it again.
    """

    def __init__(
        self, fd: int, device_sizes: Sequence[int], pieces: tuple[int, int], content: int
    ) -> None: ...
    @property
    def root(self) -> int:
        """The node id of the root."""
    def attributes(self, nid: int) -> tuple[int, int, int, int, int, int, int, int]:
        """Return mode, nlink, uid, gid, rdev, size, and the mtime in seconds and nanoseconds."""
    def lookup(self, nid: int, name: bytes) -> int | None:
        """Return the node id of a name in a directory, None without one."""
    def entries(self, nid: int, position: int) -> list[tuple[int, bytes, int]]:
        """Return some entries of a directory, none at its end: (next position, name, node id).

        They are in the order of the names' bytes, with ``.`` and ``..`` among them.
        """
    def target(self, nid: int) -> bytes:
        """Return the target of a symbolic link."""
    def xattr(self, nid: int, name: bytes) -> bytes:
        """Return an extended attribute; OSError(ENODATA) without it."""
    def xattr_names(self, nid: int) -> list[bytes]:
        """Return the names of the extended attributes, without the image's own marks."""
    def place(self, nid: int) -> bytes | list[tuple[int, int, int]]:
        """Return where a regular file lies: the path of a whole file, or pieces.

        A piece is (device, offset, length); device 0 is the image, -1 a hole.
        """

def frozen_source(
    image: ErofsImage,
    devices: Sequence[tuple[bytes, int, int]],
    roots: Sequence[int],
    refused: tuple[int, int],
) -> Source:
    """Return a source that shows an image.

    `devices` are the files that pieces lie in: path, size, and mtime in ns. `roots` are descriptors
    of the directories that whole files lie below; they are copied. `refused` is the (major, minor)
    number of our own mount. Raises OSError if a descriptor cannot be copied.
    """

def mixed_ino(device: int, ino: int) -> int:
    """Return one number, the same every time, for an inode of another device."""

def tick_ns(time_ns: int) -> int:
    """Return how long, in ns, a time of change does not prove that nothing changed after it."""

def serving_threads(wanted: int) -> int:
    """Return how many threads serve requests: `wanted`, or for 0 one per processor, 2 to 8."""

def is_local(fd: int) -> bool:
    """Whether the file's filesystem has its attributes up to date without asking anyone."""

def clone_device(fd: int) -> int:
    """Return a new descriptor of /dev/fuse for the connection of `fd`. Raises OSError."""

def trace_lines(
    packed: bytes,
    places: bytes,
    roots: dict[int, bytes],
    operations: Sequence[str],
    lost: int,
    json: bool,
) -> tuple[bytes, int]:
    """Return a line of text or JSON for each event of drain_trace(), and their number.

    `roots` are the paths of the directories where the places begin. The first event of JSON has
    the count of lost ones.
    """

def traced_files(
    packed: bytes,
    places: bytes,
    roots: dict[int, bytes],
    operations: Sequence[str],
    wanted: Sequence[str],
) -> tuple[list[bytes], int, int]:
    """Return the files that events of the wanted operations name, each once.

    Then how many of these have no path, and the number of all events.
    """

def upcall_pair(message_bytes: int) -> tuple[int, int, int]:
    """Return (the data path's end, pyfuse3's end, the socket's largest message in bytes)."""

def arm_faults(text: str) -> bool:
    """Replace the faults to inject (sys/faults.hpp has the format); "" for none. For tests."""
