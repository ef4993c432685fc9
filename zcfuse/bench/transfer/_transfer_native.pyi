METHODS: tuple[str, ...]
"""The names that `transfer` knows."""

def transfer(
    method: str, path: str, sink: int, kind: str, size: int, block: int
) -> dict[str, int | str]:
    """Move the first `size` bytes of `path` to the descriptor `sink`, `block` bytes a call.

    `kind` is one of tcp, unix, null and file. At the end a socket is shut down for writing, and its
    other end must reply with the number of bytes received, in eight bytes.

    Returns the sums of the system calls' return values, the cost for this process, and a `note` on
    deviations from the request. Raises OSError if a system call fails. Releases the GIL throughout.
    """

def latency(path: str, pages: int, mapped: bool, prefaulted: bool, seed: int) -> dict[str, int]:
    """Read each of the first `pages` pages of `path` once, in random order, and time each read.

    Returns percentiles in nanoseconds and the page faults meanwhile. Raises OSError, also where the
    memory may not be locked.
    """
