"""Copies of a byte between the backing file and a client, including those without a counter.

The user-space copies are measured. The model adds one in the kernel, from a pipe's pages to FUSE's
own, and the client's: one when it reads, zero when it maps. The classic count for a FUSE daemon
that reads a file for a client that reads is four: page cache to daemon, daemon to kernel buffer,
kernel buffer to FUSE's page cache, FUSE's page cache to client. Current kernels lack that buffer;
the row serves for comparison.
"""

from typing import Final

import msgspec

# A path may serve a few small replies by another; beyond half the row belongs to the other.
_NEARLY_ALL: Final = 0.5


class CopyModel(msgspec.Struct, frozen=True):
    """Copies of each byte on its way to a client, by their author."""

    path: str
    user_space: float
    in_kernel: float
    measured: bool

    @property
    def client_reads(self) -> float:
        """All copies for a client that calls read(2)."""
        return self.user_space + self.in_kernel + 1

    @property
    def client_maps(self) -> float:
        """All copies for a client that maps the file and touches its pages."""
        return self.user_space + self.in_kernel


CLASSIC: Final = CopyModel("classic FUSE", user_space=2, in_kernel=1, measured=False)


def model_of(path: str, copied_in: float, copied_out: float, served: float) -> CopyModel:
    """Model a path from its measured copies in and out, each per byte that the client received.

    `served` is the share of the client's bytes that the daemon served (0 under passthrough, where
    the kernel reads the backing file and FUSE has no page). A served byte enters FUSE's page
    once: from user memory, which `copied_out` counts, or from a pipe's page, a copy inside the
    kernel.
    """
    spliced = served >= _NEARLY_ALL and copied_out < _NEARLY_ALL
    return CopyModel(path, copied_in + copied_out, 1.0 if spliced else 0.0, measured=True)


def native_model() -> CopyModel:
    """A client on the backing file itself."""
    return CopyModel("native", 0, 0, measured=True)
