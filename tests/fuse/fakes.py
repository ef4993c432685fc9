"""Stand-ins for the kernel and the data path, and callers of the operations."""

import os
from types import SimpleNamespace

import pyfuse3
import pytest

from zcfuse.tree import WHOLE_FILE

CONTEXT = SimpleNamespace(uid=0, gid=0, pid=os.getpid(), umask=0)
USER = SimpleNamespace(uid=1000, gid=1000, pid=os.getpid(), umask=0)
OLD = 1_000_000_000_123_456_789
ROOT = 1


class Reply:
    """Stands in for pyfuse3.readdir_reply, with room for a number of entries."""

    def __init__(self, room=10**9):
        self.room = room
        self.entries = []

    def __call__(self, token, name, entry, offset):
        if len(token.entries) >= token.room:
            return False
        token.entries.append((name, entry.st_ino, offset, entry))
        return True


class Leases:
    """Stands in for the data path and records its calls."""

    def __init__(self):
        self.calls = []
        self.inos = {}
        self.fail = None

    def install(self, nodeid, extents, path=""):
        if self.fail:
            raise self.fail
        self.calls.append(("install", nodeid, [os.pread(fd, 4, 0) for fd, _, _ in extents]))
        assert [extent[1:] for extent in extents] == [(0, WHOLE_FILE)]
        self.fd = extents[0][0]
        return "passthrough", ""

    def revoke(self, nodeid):
        os.fstat(self.fd)  # still open while it may be in use
        self.calls.append(("revoke", nodeid))

    def set_ino(self, nodeid, ino):
        self.inos[nodeid] = ino

    def drop_inos(self, nodeids):
        for nodeid in nodeids:
            del self.inos[nodeid]

    def describe(self, nodeid):
        return []


async def errno_of(call, *arguments):
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await call(*arguments)
    return caught.value.errno


async def look_up(operations, path):
    nodeid = ROOT
    for name in os.fsencode(path).split(b"/"):
        nodeid = (await operations.lookup(nodeid, name, CONTEXT)).st_ino
    return nodeid


def make_old(path, text="x"):
    path.write_text(text)
    os.utime(path, ns=(OLD, OLD))


async def listed(operations, handle, start=0, room=10**9):
    token = Reply(room)
    await operations.readdir(handle, start, token)
    return token.entries
