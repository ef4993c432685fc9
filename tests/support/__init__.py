"""Shared support: capabilities of the machine, real mounts, an ordinary user.

``requires(...)`` marks the capabilities that a test needs. Every test has the fixtures ``source``,
``mountpoint``, ``mounted`` and ``ordinary_user`` (``tests/conftest.py`` loads them).
"""

from tests.support._capabilities import (
    UnknownCapabilityError,
    missing,
    offers_everything,
    requires,
    skip_unless,
)
from tests.support._daemon import ClientHungError, Daemon, DaemonError, Mounter
from tests.support._directories import let_everyone_reach
from tests.support._kernel import MOUNT_FUSECTL, FuseMount, abort, find_mount, fuse_mounts
from tests.support._user import OrdinaryUser
from tests.support._waiting import DEADLINE_S, eventually, let_pass

__all__ = [
    "DEADLINE_S",
    "MOUNT_FUSECTL",
    "ClientHungError",
    "Daemon",
    "DaemonError",
    "FuseMount",
    "Mounter",
    "OrdinaryUser",
    "UnknownCapabilityError",
    "abort",
    "eventually",
    "find_mount",
    "fuse_mounts",
    "let_everyone_reach",
    "let_pass",
    "missing",
    "offers_everything",
    "requires",
    "skip_unless",
]
