"""Reasons why the data path used no better serving path, transport or lease: text and advice.

The data path records codes (`native/serve/reasons.hpp`) and ``zcfuse explain`` adds some of its
own. Status documents and metrics contain codes; everything for people takes its words from here. A
code may carry a detail after a colon, such as an errno's name: ``passthrough_refused: EXDEV``.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """The words for a code; ``{}`` stands for its detail. Without a remedy `advice` is empty."""

    text: str
    advice: str = ""


GOOD: Final = "as good as it gets"

_READ_BY_KERNEL: Final = "the kernel then reads the backing file itself (passthrough)"
_PIPES: Final = "raise the sysctl fs.pipe-user-pages-soft, or mount as root: the pipes use it up"
_PIPE_SIZE: Final = "raise the sysctl fs.pipe-max-size, or mount as root"
_BUDGET: Final = "mount with a larger --lock-budget: it is used up"
_NO_PAGES: Final = "mount with --transport dev: a ring cannot carry pages by reference"

_RING: Final = "mount with --transport dev: a request that waits holds an entry of a ring"
_DESCRIPTORS: Final = "raise the limit of descriptors (RLIMIT_NOFILE) before the mount"

REASONS: Final = MappingProxyType(
    {
        # Of one READ.
        "splice_too_small": Reason(
            "splice: too small, cheaper copied", f"{GOOD}: a copy of a small read costs less"
        ),
        "splice_pipe_too_short": Reason("splice: the request does not fit the pipe", _PIPE_SIZE),
        "splice_no_pipe": Reason("splice: no pipe for the reply", _PIPES),
        "splice_refused": Reason(
            "splice: the backing filesystem refused (EINVAL)",
            f"{GOOD}: that filesystem has no splice, so pool copies",
        ),
        "splice_not_over_uring": Reason("splice: not over io_uring", _NO_PAGES),
        "mmap_pipe_too_short": Reason("mmap: the request does not fit the pipe", _PIPE_SIZE),
        "mmap_no_pipe": Reason("mmap: no pipe for the reply", _PIPES),
        "mmap_refused": Reason(
            "mmap: the backing file cannot be mapped",
            "mount with --path auto: its filesystem has no mmap",
        ),
        "mmap_beyond_end": Reason(
            "mmap: the file ends within the request",
            f"{GOOD}: the file is shorter than the read, or was truncated",
        ),
        "mmap_not_prefaulted": Reason(
            "mmap: the window was not prefaulted in time",
            "run 'zcfuse warm' on the file first: the backing disk was too slow",
        ),
        "mmap_unlocked": Reason("mmap: served from an unlocked window", _BUDGET),
        "mmap_not_over_uring": Reason("mmap: not over io_uring", _NO_PAGES),
        "mmap_far": Reason(
            "mmap: the file is on a filesystem that may not answer",
            f"{GOOD}: one thread maps the files of all users",
        ),
        "mmap_never_automatic": Reason(
            "auto never uses it: it pays only for files that are read again and again"
        ),
        "pool_unlocked": Reason("pool: served from an unlocked buffer", _BUDGET),
        "passthrough_read": Reason(
            "passthrough: READ all the same (readahead or fadvise)",
            f"{GOOD}: readahead(2) and posix_fadvise(2) send READ even then",
        ),
        "read_not_present": Reason(
            "no lease for these bytes: they are being fetched, or Python follows the reader",
            f"{GOOD} once in some MiB; read the file again, or run 'zcfuse warm', for a kept file",
        ),
        "no_lease": Reason("no lease: a READ came before or after it, and Python answered"),
        # Of one open.
        "passthrough_not_permitted": Reason(
            "passthrough: not permitted (EPERM)",
            f"mount as root (CAP_SYS_ADMIN): {_READ_BY_KERNEL}",
        ),
        "passthrough_stacked": Reason(
            "passthrough: the backing filesystem is stacked (ELOOP)",
            f"mount with --stack-depth 2: {_READ_BY_KERNEL}, but the mount cannot be a"
            " layer of an overlayfs",
        ),
        "passthrough_stacked_twice": Reason(
            "passthrough: the backing filesystem is stacked too deeply (ELOOP)",
            "keep the data on a filesystem that is stacked on fewer others, such as a container's"
            " volume",
        ),
        "passthrough_not_offered": Reason(
            "passthrough: the kernel does not offer it (ENOSYS)",
            f"boot Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH: {_READ_BY_KERNEL}",
        ),
        "passthrough_silent": Reason(
            "passthrough: opens send no message on this mount",
            f"{GOOD} for small files and for repeated reads; one read of a huge file is quicker by"
            " passthrough: without --immutable, or with --path passthrough",
        ),
        "passthrough_incomplete": Reason(
            "passthrough: the file is not complete in the cache",
            "open it again once all of it was read or warmed: the kernel then reads the cache file",
        ),
        "passthrough_extents": Reason(
            "passthrough: the file is made of extents",
            f"{GOOD} for a file that is a part of others: the kernel passes only whole files"
            " through (File, Mirror)",
        ),
        "passthrough_refused": Reason(
            "passthrough: the kernel refused the backing file ({})",
            "look up {} in errno(3), and see the kernel's log",
        ),
        "opens_not_offered": Reason(
            "zero-message opens: the kernel does not offer them",
            "boot Linux 5.1 or later: each open costs a message",
        ),
        "opens_not_leased": Reason(
            "zero-message opens: Python answers for a part of the tree",
            f"{GOOD} for a tree that answers for some names itself",
        ),
        "opens_large_files": Reason(
            "zero-message opens: the files are large, so they pass through",
            f"{GOOD} for large files: a first read by passthrough takes half the time",
        ),
        "path_demanded": Reason(
            "--path {} is demanded",
            "mount with --path auto: it uses the best path for each file",
        ),
        "path_of_entry": Reason(
            "path='{}' of the entry is demanded",
            "leave path='{}' out where the tree makes this entry",
        ),
        "made_by_program": Reason(
            "a program makes its bytes",
            f"{GOOD} for bytes that a program makes at each read; if they stay the same, show them"
            " as Bytes or write them to a File",
        ),
        # Of a user's share.
        "listing_elsewhere": Reason(
            "listing: a thread for listings reads a large merged directory",
            f"{GOOD} for directories of thousands of names",
        ),
        "listing_refused": Reason(
            "listing: refused (EAGAIN), the user's listings hold half of a ring's queue", _RING
        ),
        "snapshots_refused": Reason(
            "listing: refused (ENOMEM), the user's listings take too much memory",
            "close directories that are read in part",
        ),
        "read_refused": Reason(
            "READ: refused (EAGAIN), too many of the user's READs wait for slow files",
            "put the files on a faster disk, or let the user read fewer at a time",
        ),
        "call_elsewhere": Reason(
            "call: a thread for calls makes it, which a slow filesystem may hold up",
            f"{GOOD} on a mount of several users",
        ),
        "call_refused": Reason(
            "call: refused (EAGAIN), the user's calls hold too much of a ring's queue, or WRITEs of"
            " 64 MiB wait",
            "put the source on a faster filesystem, or mount with --transport dev",
        ),
        "rename_refused": Reason(
            "RENAME: refused (EAGAIN), the source's filesystem holds another rename up",
            "put the source on a faster filesystem",
        ),
        "nameless_not_kept": Reason(
            "removal: 1,024 files without a name are kept; a further one answers ESTALE, if it is"
            " open only after a takeover",
            "have the clients close files that they removed",
        ),
        "files_refused": Reason(
            "open: refused (EMFILE), the user has too many files open", _DESCRIPTORS
        ),
        "reserve_refused": Reason(
            "open: refused (EMFILE), only root's reserve of descriptors is left", _DESCRIPTORS
        ),
        "python_files_refused": Reason(
            "open: refused (EMFILE), the user has too many files open in Python", _DESCRIPTORS
        ),
        "python_opens_refused": Reason(
            "open: refused (EAGAIN), too many opens of the user wait for leases",
            "find who holds the leases in /proc/locks",
        ),
        "upcall_waited": Reason(
            "upcall: waited, the user has a quarter of Python's tasks",
            "see which answers of the tree take long",
        ),
        "upcall_refused": Reason(
            "upcall: refused (EAGAIN), too many of the user's requests wait for Python",
            "see which answers of the tree take long, and let its policy lease them",
        ),
        # Of a request that comes again after a crash.
        "killed_daemons": Reason(
            "refused (EIO): the daemon died three times while it worked on the request",
            "look in the log for the operation and the file, and report what the daemon died of",
        ),
        # Of a directory lease.
        "names_of_path": Reason("--path {} leaves all names to Python", "mount without --path {}"),
        "names_lease_off": Reason(
            "the mount was made with --no-directory-lease",
            "mount without --no-directory-lease: Python then answers neither for names nor opens",
        ),
        "names_revoked": Reason("the directory leases were revoked"),
        "names_by_tree": Reason("the tree makes its names in Python, and mirrors no directory"),
        "names_of_policy": Reason("the tree keeps '{}' for its own policy"),
        "names_no_room": Reason("the data path has no room for the archive's names"),
        "names_lost": Reason("another mount begins there, or its lease was given up"),
        "push_not_permitted": Reason(
            "changes are not pushed: not permitted", "mount as root (CAP_SYS_ADMIN)"
        ),
        "push_names_only": Reason(
            "changes of names alone are pushed: watching filesystems is not permitted",
            "mount as root (CAP_SYS_ADMIN) to have attributes pushed too",
        ),
        "push_no_watch": Reason(
            "changes in some directories are not pushed: inotify refused to watch them",
            "raise the sysctl fs.inotify.max_user_watches",
        ),
        "push_filesystem": Reason(
            "changes are not pushed: the filesystem does not report each change",
            "keep the data on ext4, xfs, tmpfs or the top subvolume of btrfs",
        ),
        "push_queue": Reason(
            "changes are not pushed: fanotify failed",
            "raise the sysctls fs.fanotify.max_user_groups and fs.fanotify.max_user_marks",
        ),
        "strict_written": Reason(
            "the size and times of a file were not kept: a program had it open for writing", GOOD
        ),
        "strict_refused": Reason(
            "the size and times of a file were not kept: the kernel refused a read lease",
            "mount as root (CAP_LEASE), on ext4, xfs, tmpfs or btrfs",
        ),
        "strict_parts": Reason(
            "the size and times of a file were not kept: its bytes are parts of files, which get no"
            " read lease",
            GOOD,
        ),
        "push_not_watching": Reason(
            "changes are not pushed: when the mount began, nothing in it asked for that",
            "mount with coherence='push', or with the tree in place",
        ),
        # Of the transport.
        "ring_not_wanted": Reason("--transport dev is demanded", "mount without --transport dev"),
        "ring_ends_with_daemon": Reason(
            "io_uring would end with the daemon, which --survive outlives",
            f"{GOOD} for a mount that survives",
        ),
        "ring_no_device": Reason("a socket has no ring"),
        "ring_not_in_kernel": Reason(
            "this kernel has no FUSE over io_uring",
            "boot Linux 6.14 or later with CONFIG_FUSE_IO_URING",
        ),
        "ring_switched_off": Reason(
            "FUSE over io_uring is switched off",
            "as root: 'echo Y > /sys/module/fuse/parameters/enable_uring'",
        ),
        "ring_not_for_path": Reason(
            "path {} does not work over io_uring", "mount without --path {}"
        ),
        "ring_no_passthrough": Reason(
            "without passthrough (CAP_SYS_ADMIN), splice serves most bytes, which io_uring lacks",
            f"mount as root: {_READ_BY_KERNEL}",
        ),
        "ring_stacked_source": Reason(
            "without passthrough of a stacked source, splice serves most bytes, which io_uring"
            " lacks",
            f"mount with --stack-depth 2: {_READ_BY_KERNEL}",
        ),
        "ring_parts": Reason(
            "files of this tree are large parts of files: splice serves them, which io_uring lacks",
            f"{GOOD} for such a tree",
        ),
        "ring_not_offered": Reason(
            "the kernel offers no io_uring, or no passthrough to go with it",
            "boot Linux 6.14 or later with CONFIG_FUSE_IO_URING and CONFIG_FUSE_PASSTHROUGH",
        ),
        "ring_failed": Reason("io_uring: {}", "mount with --transport dev, or see the error"),
    }
)


def coded(code: str, detail: str = "") -> str:
    """Return a code with its detail. Raises KeyError for a code that has no words."""
    return f"{code}: {detail}" if detail and REASONS[code] else code


def reason_text(reason: str) -> str:
    """Return a reason in words. An unknown code, as from another version, stays as it is."""
    return _words(reason, Reason(reason)).text


def reason_advice(reason: str) -> str:
    """Return what to do about a reason; "" if that is nothing, or for an unknown one."""
    return _words(reason, Reason(reason)).advice


def reason_line(reason: str) -> str:
    """Return a reason in words, and what to do about it."""
    advice = reason_advice(reason)
    return f"{reason_text(reason)}: {advice}" if advice else reason_text(reason)


def push_refusal(code: str) -> str:
    """Return a line for why changes are not pushed, or only those of names, and what follows."""
    timed = "attributes" if code == "push_names_only" else "answers"
    return f"{reason_line(code)}; {timed} hold for the cache timeout"


def _words(reason: str, unknown: Reason) -> Reason:
    code, _, detail = reason.partition(": ")
    if code not in REASONS:
        return unknown
    return Reason(*(words.replace("{}", detail) for words in REASONS[code]))
