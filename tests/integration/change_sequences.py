"""Operations that make up a sequence of changes, for mirrors and unions alike.

Each is Python code for a client (`tests.integration.client`), once `HELPERS` are there. `fds` maps
the slots to descriptors, and `at` a name to its path.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

SLOTS = st.integers(0, 2)
OFFSETS = st.sampled_from([0, 1, 100, 4095, 4096, 20_000, 70_000])
SIZES = st.sampled_from([1, 100, 4096, 10_000])
MODES = st.sampled_from(["0o644", "0o4755", "0o2770", "0o6777", "0o1777", "0o000"])
NO_FILES = "fds = {slot: 1_000_000 for slot in range(3)}"
CLOSE_FILES = "[os.close(fd) for fd in fds.values() if fd != 1_000_000]"
# A FIFO would make an open wait for its other end.
HELPERS = """
import shutil
def at(name):
    return p('case/' + name)
def reopen(slot, name, flags):
    os.path.exists(fds[slot]) and os.close(fds[slot])
    fds[slot] = 1_000_000
    fds[slot] = os.open(at(name), flags | os.O_NONBLOCK, 0o666)
def punch(fd, offset, size):
    checked(libc.fallocate(fd, 3, ctypes.c_long(offset), ctypes.c_long(size)))
def renameat2(old, new, flags):
    checked(libc.renameat2(-100, at(old), -100, at(new), flags))
def seen(s):
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    return oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, size
def tree():
    found = []
    for directory, names, files in sorted(os.walk(p('case'))):
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            data = open(path, 'rb').read() if stat.S_ISREG(status.st_mode) else b''
            found.append((os.path.relpath(path, p('case')), seen(status), digest(data)))
    return found
"""


def open_flags(modes: Sequence[str], others: Sequence[str]) -> SearchStrategy[str]:
    """Flags of open(2): one of `modes` with one of `others`."""
    return st.builds("{} | {}".format, st.sampled_from(modes), st.sampled_from(others))


def changes(
    names: SearchStrategy[str], flags: SearchStrategy[str], rename_flags: Sequence[int]
) -> SearchStrategy[str]:
    """One operation on `names`: `flags` are those of its open, `rename_flags` of renameat2(2)."""
    return st.one_of(
        st.builds("reopen({}, '{}', {})".format, SLOTS, names, flags),
        st.builds("os.pwrite(fds[{}], b'w' * {}, {})".format, SLOTS, SIZES, OFFSETS),
        st.builds("os.write(fds[{}], b'v' * {})".format, SLOTS, SIZES),
        st.builds("os.pread(fds[{}], {}, {})".format, SLOTS, SIZES, OFFSETS),
        st.builds("os.ftruncate(fds[{}], {})".format, SLOTS, OFFSETS),
        st.builds("os.fchmod(fds[{}], {})".format, SLOTS, MODES),
        st.builds("punch(fds[{}], {}, {})".format, SLOTS, OFFSETS, SIZES),
        st.builds("seen(os.fstat(fds[{}]))".format, SLOTS),
        st.builds("seen(os.lstat(at('{}')))".format, names),
        st.builds("os.mkdir(at('{}'), {})".format, names, MODES),
        st.builds("os.rmdir(at('{}'))".format, names),
        st.builds("os.unlink(at('{}'))".format, names),
        st.builds("os.rename(at('{}'), at('{}'))".format, names, names),
        st.builds("renameat2('{}', '{}', {})".format, names, names, st.sampled_from(rename_flags)),
        st.builds("os.link(at('{}'), at('{}'))".format, names, names),
        st.builds("os.symlink('{}', at('{}'))".format, names, names),
        st.builds("os.mkfifo(at('{}'), {})".format, names, MODES),
        st.builds("os.truncate(at('{}'), {})".format, names, OFFSETS),
        st.builds("os.chmod(at('{}'), {})".format, names, MODES),
        st.builds("os.chown(at('{}'), {}, -1)".format, names, st.sampled_from([0, 7, -1])),
        st.builds("os.utime(at('{}'), ns=(5, {}))".format, names, OFFSETS),
        st.builds("os.setxattr(at('{}'), 'user.x', b'v')".format, names),
        st.builds("os.removexattr(at('{}'), 'user.x')".format, names),
        st.builds("sorted(os.listdir(at('{}')))".format, names),
    )
